"""Finding near-duplicates in a library."""
