"""Thumbnails: storing, reading and sweeping them."""
