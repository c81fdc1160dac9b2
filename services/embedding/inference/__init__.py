"""Models on Triton: discovery, probes, vector spaces, batched inference."""
