"""The bare path: the same search in a single process, without any service.

Decoding and preprocessing are functions of the suite, the models run in ONNX Runtime, and the query
runs on a copy of the Catalog's Qdrant Edge shard with its index.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import qdrant_edge as q

from imagesearch_services.catalog.edge.files import read_generation
from imagesearch_services.common.types import Box
from imagesearch_services.embedding.pictures.description import describe_file
from imagesearch_services.embedding.pictures.picture_file import PictureFile
from imagesearch_services.embedding.pictures.preprocess import (
    InputSpec,
    Resize,
    harmless_reduction,
    preprocess,
)

COPY_SPACE = "sscd@1"
SEMANTIC_SPACE = "efficientnet_lite2@1"
SPECS = {
    COPY_SPACE: InputSpec(288, 288, Resize.SQUASH),
    SEMANTIC_SPACE: InputSpec(260, 260, Resize.LETTERBOX),
}
LIMIT = 11
"""Number of hits per query: a page of ten, and a hit that shows whether there is a next page."""
HNSW_EF = 128
"""Search breadth of the index, the Catalog's default."""
CORES = len(os.sched_getaffinity(0))
BATCH = 8
"""Maximum number of pictures per run of a model while adding."""


class BarePath:
    """Searches and adds in this process."""

    def __init__(self, models_dir: Path, shard_folder: Path) -> None:
        # The fastest settings: all cores for a single caller, one thread for concurrent callers.
        self._single = {space: self._session(models_dir, space, threads=CORES) for space in SPECS}
        self._concurrent = {space: self._session(models_dir, space, threads=1) for space in SPECS}
        self._shard = q.EdgeShard.load(str(shard_folder))
        self.last_steps_ms: dict[str, float] = {}

    @classmethod
    def over_copy(cls, models_dir: Path, collection_folder: Path, copy: Path) -> BarePath:
        """Use a copy of the collection's current generation."""
        generation = read_generation(collection_folder)
        shutil.copytree(collection_folder / str(generation), copy)
        return cls(models_dir, copy)

    def search(self, content: bytes) -> str:
        """Return the id of the nearest point, and store the step durations in `last_steps_ms`."""
        return self._search(content, self._single)

    def search_concurrently(self, content: bytes) -> str:
        """Return the id of the nearest point; for calls from several threads."""
        return self._search(content, self._concurrent)

    def _search(self, content: bytes, sessions: dict[str, onnxruntime.InferenceSession]) -> str:
        began_s = time.perf_counter()
        inputs = _read(content, [COPY_SPACE])
        decoded_s = time.perf_counter()
        vector = _embed(sessions[COPY_SPACE], inputs[COPY_SPACE])[0]
        inferred_s = time.perf_counter()
        hits = self._shard.query(
            q.QueryRequest(
                limit=LIMIT,
                query=q.Query.Nearest(vector, using=COPY_SPACE),
                with_payload=True,
                params=q.SearchParams(hnsw_ef=HNSW_EF),
            )
        )
        ended_s = time.perf_counter()
        self.last_steps_ms = {
            "embed:decode": (decoded_s - began_s) * 1e3,
            "embed:infer": (inferred_s - decoded_s) * 1e3,
            "query": (ended_s - inferred_s) * 1e3,
            "total": (ended_s - began_s) * 1e3,
        }
        return str(hits[0].id)

    def add(self, contents: Sequence[bytes], batch: int) -> None:
        """Decode, embed with both models, and store, batch by batch."""
        for first in range(0, len(contents), batch):
            pictures = [_read(content, list(SPECS)) for content in contents[first : first + batch]]
            vectors = {
                space: np.concatenate(
                    [
                        _embed(session, np.concatenate([inputs[space] for inputs in chunk]))
                        for chunk in _chunks(pictures, BATCH)
                    ]
                )
                for space, session in self._single.items()
            }
            self._shard.update(
                q.UpdateOperation.upsert_points(
                    [
                        q.Point(
                            uuid.uuid4(),
                            {space: rows[row] for space, rows in vectors.items()},  # type: ignore[dict-item]
                            {"image_id": str(first + row)},
                        )
                        for row in range(len(pictures))
                    ]
                )
            )

    @staticmethod
    def _session(models_dir: Path, space: str, *, threads: int) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # As on Triton: spinning threads of one model would slow down the other model.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        name, version = space.split("@")
        return onnxruntime.InferenceSession(
            models_dir / "repository" / name / version / "model.onnx",
            options,
            providers=["CPUExecutionProvider"],
        )


def _read(content: bytes, spaces: Sequence[str]) -> dict[str, npt.NDArray[np.uint8]]:
    """Return each model's input for the whole picture, uint8 [1, height, width, 3]."""
    specs = [SPECS[space] for space in spaces]
    file = PictureFile(content)
    whole = Box(0, 0, file.width, file.height)
    picture = file.decode(harmless_reduction(file.width, file.height, [whole], specs))
    describe_file(content, file.media_type, picture)
    upright = Box(0, 0, picture.width, picture.height)
    return {
        space: preprocess(picture, [upright], spec)
        for space, spec in zip(spaces, specs, strict=True)
    }


def _embed(
    session: onnxruntime.InferenceSession, inputs: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Return unit vectors, float32 [pictures, dimensions]."""
    (output,) = session.run(None, {session.get_inputs()[0].name: inputs})
    vectors: npt.NDArray[np.float32] = output / np.linalg.norm(output, axis=1, keepdims=True)
    return vectors


def _chunks(
    pictures: Sequence[dict[str, npt.NDArray[np.uint8]]], size: int
) -> list[Sequence[dict[str, npt.NDArray[np.uint8]]]]:
    return [pictures[first : first + size] for first in range(0, len(pictures), size)]
