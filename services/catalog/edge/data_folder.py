"""The data folder of the embedded engine: its lock and its collections."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import qdrant_edge as q

from imagesearch_services.catalog.disk import create_folder, sync_folder, sync_tree
from imagesearch_services.catalog.edge.collection import (
    PLACEHOLDER_SPACE,
    Collection,
    WritePolicy,
)
from imagesearch_services.catalog.edge.conversion import index_params
from imagesearch_services.catalog.edge.counts import read_counts, write_counts
from imagesearch_services.catalog.edge.files import (
    CURRENT_FILE,
    read_generation,
    write_generation,
)
from imagesearch_services.catalog.edge.settings import EdgeSettings
from imagesearch_services.catalog.failpoints import failpoint
from imagesearch_services.catalog.model import FieldType, VectorSpace
from imagesearch_services.catalog.storage import CollectionStats, FolderLockedError

LOCK_FILE = "lock"

LOCK_POLL_S = 0.05
"""Time between two attempts to lock the data folder, in seconds."""

MAX_OPEN = 64
"""Maximum open shards. The least recently used shard is closed to make room; reopening it takes a
tenth of a second. An open shard holds files and threads, and delays the shutdown."""

COMPACT_DENSE = q.VectorStorageDatatype.Turbo8
"""Data type of compact dense vectors: one byte per component, yet as exact as float16. The error of
the cosine of 512 components is 0.0003."""
COMPACT_SPARSE = q.VectorStorageDatatype.Float16
"""Data type of the weights of compact sparse vectors."""


class DataFolder:
    """Collections by name, opened on first use."""

    def __init__(self, settings: EdgeSettings) -> None:
        """Lock the folder until the process ends.

        Raises:
            FolderLockedError: another process still holds the lock after `lock_wait_s`.
        """
        self._path = settings.folder
        self._min_free_bytes = settings.min_free_bytes
        self.policy = WritePolicy(settings.flush_points, settings.durable)
        self._open: dict[str, Collection] = {}
        # Counts of the collections that were closed to make room and not reopened.
        self._closed_stats: dict[str, CollectionStats] = {}
        create_folder(self._path, durable=settings.durable)
        self._lock = _lock(self._path, settings.lock_wait_s)

    def close(self) -> None:
        """Flush and close every shard."""
        while self._open:
            _, collection = self._open.popitem()
            self._close(collection)

    def collection(self, name: str) -> Collection:
        """Return a collection, opening it if necessary."""
        collection = self._open.pop(name, None) or Collection.open(self._path / name, self.policy)
        self._add(name, collection)
        return collection

    def replace(self, name: str, collection: Collection) -> None:
        """Replace an open collection by another generation of it."""
        self._open[name] = collection

    def create(
        self, name: str, spaces: Sequence[VectorSpace], indexes: Mapping[str, FieldType]
    ) -> None:
        folder = self._path / name
        if (folder / CURRENT_FILE).exists():
            return
        self.require_space()
        if folder.exists():
            shutil.rmtree(folder)
        generation = folder / "0"
        generation.mkdir(parents=True)
        failpoint("create.after_folder")
        shard = q.EdgeShard.create(str(generation), _shard_config(spaces))
        for field, field_type in indexes.items():
            _create_index(shard, field, field_type)
        shard.flush()
        failpoint("create.after_shard")
        if self.policy.durable:
            sync_tree(folder)
            sync_folder(self._path)
        failpoint("create.after_sync")
        write_generation(folder, 0)
        failpoint("create.after_current")
        self._add(name, Collection(folder, 0, shard, self.policy))

    def drop(self, name: str) -> None:
        self._closed_stats.pop(name, None)
        collection = self._open.pop(name, None)
        if collection is not None:
            collection.close()
        folder = self._path / name
        if folder.exists():
            # Delete CURRENT first: if a crash leaves the rest, the folder is not a collection.
            (folder / CURRENT_FILE).unlink(missing_ok=True)
            if self.policy.durable:
                sync_folder(folder)
            failpoint("drop.after_current")
            shutil.rmtree(folder)
            failpoint("drop.after_files")
            if self.policy.durable:
                sync_folder(self._path)

    def keep_only(self, names: frozenset[str]) -> None:
        """Remove all other collections, and the unused generations of the kept collections."""
        for folder in self._path.iterdir():
            if not folder.is_dir():
                continue
            if folder.name not in names or not (folder / CURRENT_FILE).exists():
                self.drop(folder.name)
                continue
            current = str(read_generation(folder))
            for generation in folder.iterdir():
                if generation.is_dir() and generation.name != current:
                    shutil.rmtree(generation)

    def create_index(self, name: str, field: str, field_type: FieldType) -> None:
        _create_index(self.collection(name).shard, field, field_type)

    def drop_index(self, name: str, field: str) -> None:
        self.collection(name).shard.update(q.UpdateOperation.delete_field_index(field))

    def stats(self, name: str) -> CollectionStats:
        """Return the counts of a collection, without opening it if they are stored."""
        if name in self._open:
            return self.collection(name).stats()
        stats = self._closed_stats.get(name)
        if stats is None:
            folder = self._path / name
            stats = read_counts(folder / str(read_generation(folder)))
        if stats is not None:
            self._closed_stats[name] = stats
            return stats
        collection = self.collection(name)
        stats = collection.stats()
        write_counts(collection.path, stats)
        collection.counts_stored = True
        return stats

    def require_space(self, needed_bytes: int = 0) -> None:
        """Raise OSError (ENOSPC) unless the disk has space for a write of this size."""
        # The engine writes to memory-mapped files: on a full disk, SIGBUS would kill it.
        if shutil.disk_usage(self._path).free < self._min_free_bytes + needed_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _add(self, name: str, collection: Collection) -> None:
        """Add a collection as the most recently used, which is the last in the dictionary."""
        self._open[name] = collection
        self._closed_stats.pop(name, None)
        # A collection with an open copy is about to be replaced by it, so it stays open.
        closable = [key for key, candidate in self._open.items() if candidate.copy is None]
        for least_recent in closable[: max(0, len(self._open) - MAX_OPEN)]:
            self._closed_stats[least_recent] = self._close(self._open.pop(least_recent))

    def _close(self, collection: Collection) -> CollectionStats:
        """Close a collection; return its counts and store them."""
        stats = collection.stats()
        collection.close()
        write_counts(collection.path, stats)
        return stats


def _lock(folder: Path, wait_s: float) -> TextIO:
    """Lock the folder; the lock is held until the returned file is closed."""
    deadline = time.monotonic() + wait_s
    file = (folder / LOCK_FILE).open("w")
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # The previous owner may still be shutting down.
            if time.monotonic() > deadline:
                file.close()
                raise FolderLockedError(f"{folder} is in use by another Catalog") from None
            time.sleep(LOCK_POLL_S)
        else:
            return file


def _shard_config(spaces: Sequence[VectorSpace]) -> q.EdgeConfig:
    dense = [space for space in spaces if not space.sparse] if spaces else [PLACEHOLDER_SPACE]
    return q.EdgeConfig(
        vectors={
            space.name: q.EdgeVectorParams(
                space.dimensions,
                q.Distance.Cosine,
                datatype=COMPACT_DENSE if space.compact else None,
            )
            for space in dense
        },
        sparse_vectors={
            space.name: q.EdgeSparseVectorParams(
                modifier=q.Modifier.Idf, datatype=COMPACT_SPARSE if space.compact else None
            )
            for space in spaces
            if space.sparse
        },
        wal_enabled=True,
    )


def _create_index(shard: q.EdgeShard, field: str, field_type: FieldType) -> None:
    shard.update(q.UpdateOperation.create_field_index(field, index_params(field, field_type)))
