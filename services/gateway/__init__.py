"""The public contract: validation, the steps of adding and searching, scores, limits, access."""
