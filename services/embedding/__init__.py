"""Embedding: everything that needs pixels, from the bytes of a picture to its vectors."""
