"""Runner of the whole suite on one machine: Triton, Catalog, Embedding, Gateway on 127.0.0.1."""
