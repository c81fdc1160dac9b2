"""Clients of the Catalog and Embedding services."""
