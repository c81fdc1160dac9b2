"""Picture files: limits, decoding, preprocessing, thumbnails."""
