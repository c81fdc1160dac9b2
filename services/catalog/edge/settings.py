"""Settings of the embedded backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """Settings of the embedded engine; the engine process receives them, too."""

    folder: Path
    """Data folder with the collections; locked while the engine runs."""
    min_free_bytes: int
    """Free space on the disk below which the engine refuses to write."""
    indexing_threshold: int
    """Unindexed vectors of a collection that start an index build; 0: never."""
    hnsw_m: int
    """Edges per node of the HNSW graph."""
    hnsw_ef_construct: int
    """Search breadth while the graph is built."""
    hnsw_ef: int
    """Search breadth in queries."""
    indexing_threads: int
    """Threads of an index build."""
    segments: int
    """Graphs that a collection is split into. They are searched in parallel; a single graph has the
    best recall."""
    lock_wait_s: float = 10.0
    """How long to wait for the previous owner of the folder, which may be shutting down."""
