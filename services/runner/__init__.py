"""Runs the whole suite on one machine: Triton, Catalog, Embedding and Gateway on 127.0.0.1."""
