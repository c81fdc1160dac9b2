"""Prepares what Triton serves: pinned weights, the server itself, its Python environment."""
