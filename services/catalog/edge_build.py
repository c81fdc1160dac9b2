"""Builds the HNSW index of a shard that nobody else has open: `python -m … FOLDER`.

A process of its own, since the engine's bindings hold Python's global lock while they build,
and so that it can run at the lowest priority and be killed at any time: it works on a copy.
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
"""Of prctl(2): the signal that we get when our parent dies."""

DATATYPES = {
    "float32": q.VectorStorageDatatype.Float32,
    "float16": q.VectorStorageDatatype.Float16,
    "turbo8": q.VectorStorageDatatype.Turbo8,
}
"""As a shard's configuration names them; where it names none, the engine's default holds."""

SMALLEST_INDEXED_KB = 64
"""Segments above this get an index. The threshold that people set is kept by who starts us."""


def build(folder: str, *, m: int, ef_construct: int, threads: int, segments: int) -> None:
    """Index all vectors of the shard in the folder and leave it closed."""
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
                indexing_threshold=SMALLEST_INDEXED_KB, default_segment_number=segments
            ),
        ),
    )
    shard.optimize()
    shard.flush()
    shard.close()


def _datatype(space: Mapping[str, Any]) -> q.VectorStorageDatatype | None:
    """Give what a space was made with: it stays so for ever."""
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
