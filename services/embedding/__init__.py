"""The Embedding service: all work on pixels, from the bytes of a picture to its vectors."""
