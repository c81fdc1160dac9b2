"""Settings of the embedded backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """Settings of the embedded engine; the engine process receives them, too."""

    folder: Path
    """Folder of the collections, which is locked while the engine runs."""
    min_free_bytes: int
    """Minimum free disk space, in bytes; below it the engine refuses to write."""
    indexing_threshold: int
    """Number of unindexed vectors of a collection that starts an index build; 0: never."""
    hnsw_m: int
    """Edges per node of the HNSW graph."""
    hnsw_ef_construct: int
    """Search breadth while the graph is built."""
    hnsw_ef: int
    """Search breadth in queries."""
    indexing_threads: int
    """Number of threads of an index build."""
    segments: int
    """Number of graphs per collection. Graphs are searched in parallel; a single graph has the best
    recall."""
    durable: bool = True
    """Whether acknowledged writes survive a power loss; False: only killed processes."""
    flush_points: int = 20_000
    """Points written to a collection between two flushes of its shard."""
    lock_wait_s: float = 10.0
    """Maximum time to wait for the lock of the folder, in seconds: its previous owner may still be
    shutting down."""
