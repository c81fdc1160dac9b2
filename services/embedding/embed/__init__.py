"""Embeddings of pictures, regions and subjects."""
