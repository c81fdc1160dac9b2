"""Settings of the scaled-out backend."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Address of the Qdrant server, and parameters of new collections."""

    url: str
    grpc_port: int
    api_key: str = field(repr=False)
    """API key of the server; empty: no key is sent."""
    shard_number: int
    replication_factor: int
    write_consistency: int
    """Number of replicas that must store a write before it is acknowledged."""
    timeout_s: float
    """Maximum time of a call, in seconds."""
    indexing_threshold: int
    """Number of unindexed vectors of a segment that starts an index build; 0: never."""
    hnsw_m: int
    """Edges per node of the HNSW graph."""
    hnsw_ef_construct: int
    """Search breadth while the graph is built."""
    hnsw_ef: int
    """Search breadth in queries."""
