"""The Catalog: libraries and their entries, on Qdrant."""
