"""The scaled-out backend: a Qdrant server or cluster, over gRPC."""
