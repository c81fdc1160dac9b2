"""A collection: a folder with numbered generations of a shard.

The file CURRENT names the generation in use. An index is built in a copy of the shard, the next
generation, which replaces the current one when the build is complete.
"""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import NamedTuple

import qdrant_edge as q

from imagesearch_services.catalog.disk import sync_folders, sync_tree
from imagesearch_services.catalog.edge.counts import forget_counts
from imagesearch_services.catalog.edge.files import read_generation
from imagesearch_services.catalog.edge.page_cache import read_payload_ahead
from imagesearch_services.catalog.failpoints import failpoint
from imagesearch_services.catalog.model import VectorSpace
from imagesearch_services.catalog.storage import CollectionStats

PLACEHOLDER_SPACE = VectorSpace("none@0", 1)
"""Unused vector space of metadata collections, because a shard needs at least one space."""


class WritePolicy(NamedTuple):
    """How a collection is written."""

    flush_points: int
    """Points written between two flushes. It bounds the write-ahead log, which is replayed when a
    killed engine restarts."""
    durable: bool
    """Whether writes survive a power loss."""


class Collection:
    """An open generation of a collection."""

    def __init__(
        self, folder: Path, generation: int, shard: q.EdgeShard, policy: WritePolicy
    ) -> None:
        self._policy = policy
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
    def open(cls, folder: Path, policy: WritePolicy, generation: int) -> Collection:
        """Open a generation."""
        path = folder / str(generation)
        if policy.durable:
            # A killed process may have written to the log without syncing it. A retry of such a
            # write finds it done and is acknowledged without another one.
            sync_tree(path / "wal")
        shard = q.EdgeShard.load(str(path))
        return cls(folder, generation, shard, policy)

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
        """Write points; flush every `flush_points` points. The log keeps them without a flush."""
        self.forget_counts()
        before = self.shard.info().points_count
        self.shard.update(q.UpdateOperation.upsert_points(points))
        replaced = len(points) - (self.shard.info().points_count - before)
        self._stale_vectors += replaced * self._dense_spaces
        self._unflushed_points += len(points)
        if self._unflushed_points >= self._policy.flush_points:
            self.flush()
            failpoint("points.after_flush")

    def flush(self) -> None:
        """Make the segments durable, then shorten the log.

        The engine syncs the log, the content of every file it changed, and only then the number of
        the first write that a replay needs. It does not sync the names of all new files.
        """
        if self._policy.durable:
            sync_folders(self.path)
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
        # A switch that failed late may have made the copy the generation in use.
        if read_generation(self.folder) == self.generation:
            shutil.rmtree(self.copy_path, ignore_errors=True)
