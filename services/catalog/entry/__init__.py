"""Entries: storing, reading, changing and deleting them."""
