"""Builds the HNSW index of a shard: `python -m imagesearch_services.catalog.edge.builder FOLDER`.

No other process may have the shard open. The build has its own process because the engine's
bindings hold Python's global interpreter lock during it. The process has the lowest priority and
may be killed at any time, because it works on a copy.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import qdrant_edge as q

PR_SET_PDEATHSIG = 1
"""Option of prctl(2) that sets the signal sent to this process when its parent dies."""

DATATYPES = {
    "float32": q.VectorStorageDatatype.Float32,
    "float16": q.VectorStorageDatatype.Float16,
    "turbo8": q.VectorStorageDatatype.Turbo8,
}
"""Data types by their names in a shard's configuration."""

MIN_INDEXED_KB = 64
"""Minimum size of an indexed segment, in KB. The `Indexer` applies the configured threshold before
it starts a build."""


def build(folder: str, *, m: int, ef_construct: int, threads: int, segments: int) -> None:
    """Index all vectors of the shard in a folder."""
    stored = json.loads((Path(folder) / "edge_config.json").read_text(encoding="utf-8"))
    shard = q.EdgeShard.load(
        folder,
        q.EdgeConfig(
            vectors={
                name: q.EdgeVectorParams(
                    space["size"], q.Distance.Cosine, datatype=_datatype(space)
                )
                for name, space in stored["vectors"].items()
            },
            sparse_vectors={
                name: q.EdgeSparseVectorParams(modifier=q.Modifier.Idf, datatype=_datatype(space))
                for name, space in stored["sparse_vectors"].items()
            },
            hnsw_config=q.HnswIndexConfig(
                m=m,
                ef_construct=ef_construct,
                full_scan_threshold=10_000,
                max_indexing_threads=threads,
            ),
            optimizers=q.EdgeOptimizersConfig(
                indexing_threshold=MIN_INDEXED_KB, default_segment_number=segments
            ),
        ),
    )
    shard.optimize()
    shard.flush()
    shard.close()


def _datatype(space: Mapping[str, Any]) -> q.VectorStorageDatatype | None:
    """Return the data type of a space, which is fixed at its creation; None: the default type."""
    name = space.get("datatype")
    return None if name is None else DATATYPES[name]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--m", type=int, required=True)
    parser.add_argument("--ef-construct", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--segments", type=int, required=True)
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(19)
    build(
        options.folder,
        m=options.m,
        ef_construct=options.ef_construct,
        threads=options.threads,
        segments=options.segments,
    )


if __name__ == "__main__":
    main()
