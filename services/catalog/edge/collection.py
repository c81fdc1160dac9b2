"""A collection: a folder with numbered generations of a shard.

The file CURRENT names the generation in use. An index is built in a copy of the shard, the next
generation, which replaces the current one when the build is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import qdrant_edge as q

from imagesearch_services.catalog.edge.counts import forget_counts
from imagesearch_services.catalog.edge.files import sync_folder
from imagesearch_services.catalog.edge.page_cache import read_payload_ahead
from imagesearch_services.catalog.model import VectorSpace
from imagesearch_services.catalog.storage import CollectionStats

CURRENT_FILE = "CURRENT"
"""Name of the file that holds the number of the generation in use."""

PLACEHOLDER_SPACE = VectorSpace("none@0", 1)
"""Unused vector space of metadata collections, because a shard needs at least one space."""

FLUSH_POINTS = 20_000
"""Points written between two flushes of a shard. It bounds the write-ahead log, which is replayed
when a killed engine restarts."""


class Collection:
    """An open generation of a collection."""

    def __init__(self, folder: Path, generation: int, shard: q.EdgeShard) -> None:
        self.folder = folder
        self.generation = generation
        self.shard = shard
        self.copy: Collection | None = None
        """The next generation, from the completion of its index until it replaces this one."""
        config = json.loads((self.path / "edge_config.json").read_text(encoding="utf-8"))
        self._dense_spaces = len(config["vectors"].keys() - {PLACEHOLDER_SPACE.name})
        self._sparse_spaces = len(config["sparse_vectors"])
        # Number of vectors replaced or removed since the index was built. The engine counts them
        # as indexed until the next build.
        self._stale_vectors = 0
        self._unflushed_points = 0
        self.counts_stored = True
        """Whether the file of counts may exist. It is removed before the next write."""
        threading.Thread(target=read_payload_ahead, args=[self.path], daemon=True).start()

    @classmethod
    def open(cls, folder: Path, generation: int | None = None) -> Collection:
        """Open a generation, by default the one in use."""
        if generation is None:
            generation = read_generation(folder)
        shard = q.EdgeShard.load(str(folder / str(generation)))
        return cls(folder, generation, shard)

    @property
    def path(self) -> Path:
        return self.folder / str(self.generation)

    @property
    def copy_path(self) -> Path:
        """Folder of the next generation."""
        return self.folder / str(self.generation + 1)

    @property
    def has_vectors(self) -> bool:
        """False for collections that hold metadata."""
        return bool(self._dense_spaces or self._sparse_spaces)

    def upsert(self, points: list[q.Point]) -> None:
        """Write points; flush every `FLUSH_POINTS` points. Writes are durable without a flush."""
        self.forget_counts()
        before = self.shard.info().points_count
        self.shard.update(q.UpdateOperation.upsert_points(points))
        replaced = len(points) - (self.shard.info().points_count - before)
        self._stale_vectors += replaced * self._dense_spaces
        self._unflushed_points += len(points)
        if self._unflushed_points >= FLUSH_POINTS:
            self.shard.flush()
            self._unflushed_points = 0

    def delete(self, ids: list[q.PointId]) -> None:
        self.forget_counts()
        before = self.shard.info().points_count
        self.shard.update(q.UpdateOperation.delete_points(ids))
        self._stale_vectors += (before - self.shard.info().points_count) * self._dense_spaces

    def stats(self) -> CollectionStats:
        info = self.shard.info()
        dense = info.points_count * self._dense_spaces
        # The engine's count includes sparse vectors, which are indexed when they are written.
        indexed = info.indexed_vectors_count - info.points_count * self._sparse_spaces
        unindexed = dense - indexed + self._stale_vectors
        return CollectionStats(info.points_count, min(max(unindexed, 0), dense))

    def close(self) -> None:
        """Flush and close the shard, and the copy if it is open."""
        self.shard.close()
        if self.copy is not None:
            self.copy.close()

    def forget_counts(self) -> None:
        """Remove the stored counts, which the next write makes wrong."""
        if self.counts_stored:
            forget_counts(self.path)
            self.counts_stored = False

    def drop_copy(self) -> None:
        """Close the copy, if it is open, and remove its files."""
        if self.copy is not None:
            self.copy.close()
            self.copy = None
        shutil.rmtree(self.copy_path, ignore_errors=True)


def read_generation(folder: Path) -> int:
    """Return the generation in use."""
    return int((folder / CURRENT_FILE).read_text(encoding="ascii"))


def write_generation(folder: Path, generation: int) -> None:
    """Set the generation in use, atomically and durably."""
    draft = folder / f"{CURRENT_FILE}.new"
    with draft.open("w", encoding="ascii") as file:
        file.write(str(generation))
        file.flush()
        os.fsync(file.fileno())
    draft.rename(folder / CURRENT_FILE)
    sync_folder(folder)
