"""The data folder of the embedded engine: its lock and its collections."""

from __future__ import annotations

import errno
import fcntl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import qdrant_edge as q

from imagesearch_services.catalog.disk import create_folder, sync_folder, sync_tree
from imagesearch_services.catalog.edge import layout
from imagesearch_services.catalog.edge.collection import (
    PLACEHOLDER_SPACE,
    Collection,
    WritePolicy,
)
from imagesearch_services.catalog.edge.conversion import index_params
from imagesearch_services.catalog.edge.counts import read_counts, write_counts
from imagesearch_services.catalog.edge.disk_space import DiskSpace
from imagesearch_services.catalog.edge.documents import (
    DamagedDocumentError,
    read_document,
    write_document,
)
from imagesearch_services.catalog.edge.files import write_generation
from imagesearch_services.catalog.edge.settings import EdgeSettings
from imagesearch_services.catalog.failpoints import failpoint
from imagesearch_services.catalog.model import FieldType, VectorSpace
from imagesearch_services.catalog.storage import (
    CollectionDamagedError,
    CollectionStats,
    FolderLockedError,
    FoundCollection,
    Payload,
)

LOCK_FILE = "lock"

LOCK_POLL_S = 0.05
"""Time between two attempts to lock the data folder, in seconds."""

MAX_OPEN = 64
"""Maximum open shards. The least recently used shard is closed to make room; reopening it takes a
tenth of a second. An open shard holds files and threads, and delays the shutdown."""

RESOURCE_ERRORS = (errno.ENOMEM, errno.ENFILE, errno.EMFILE, errno.ENOSPC)
"""Errors of the operating system that do not mean that a shard is damaged."""

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
            NewerFormatError: a later version wrote the data folder.
        """
        self._path = settings.folder
        self.policy = WritePolicy(settings.flush_points, settings.durable)
        self._open: dict[str, Collection] = {}
        # Counts of the collections that were closed to make room and not reopened.
        self._closed_stats: dict[str, CollectionStats] = {}
        # Why collections could not be opened.
        self._problems: dict[str, str] = {}
        create_folder(self._path, durable=settings.durable)
        self._lock = _lock(self._path, settings.lock_wait_s)
        self.read_identity()
        self.space = DiskSpace(self._path, settings.min_free_bytes)

    def close(self) -> None:
        """Flush and close every shard."""
        while self._open:
            _, collection = self._open.popitem()
            self._close(collection)
        self.space.close()

    def collection(self, name: str) -> Collection:
        """Return a collection, opening it if necessary.

        Raises:
            CollectionDamagedError: its files are missing or can't be read.
        """
        collection = self._open.pop(name, None)
        if collection is None:
            self.space.require_for_deletion()  # opening a collection replays its log
            try:
                collection = open_collection(self._path / name, self.policy)
            except CollectionDamagedError as error:
                self._problems[name] = str(error)
                raise
        self._problems.pop(name, None)
        self._add(name, collection)
        return collection

    def replace(self, name: str, collection: Collection) -> None:
        """Replace an open collection by another generation of it."""
        self._open[name] = collection

    def create(
        self, name: str, spaces: Sequence[VectorSpace], indexes: Mapping[str, FieldType]
    ) -> None:
        folder = self._path / name
        if folder.exists():
            try:
                layout.restore_current(folder)
            except CollectionDamagedError:
                # What a crash left of a creation, or the rest of a collection that lost its files.
                self.set_aside(name)
            else:
                return
        self.space.require()
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
        self.space.require_for_deletion()
        self._forget(name)
        if (self._path / name).exists():
            layout.remove_folder(self._path / name)
            failpoint("drop.after_files")

    def set_aside(self, name: str) -> str:
        """Move a collection to the quarantine; return its new path."""
        self._forget(name)
        return layout.set_aside(self._path, name)

    def bring_back(self, name: str) -> bool:
        return layout.bring_back(self._path, name)

    def survey(self) -> tuple[list[FoundCollection], list[str]]:
        """Return all collections, and those with unused generations; open none.

        Removes what a crash left of deletions.
        """
        for path in self._path.iterdir():
            if path.name.endswith(layout.REMOVED_SUFFIX):
                layout.remove_folder(path)
        found, unsettled = list[FoundCollection](), list[str]()
        for path in self._path.iterdir():
            if not layout.is_collection(path):
                continue
            problem = ""
            try:
                current = layout.restore_current(path)
                for leftover in path.glob(f"*{layout.REMOVED_SUFFIX}"):
                    layout.remove_folder(leftover)
                if layout.unused_generations(path, current):
                    unsettled.append(path.name)
            except (CollectionDamagedError, OSError) as error:
                problem = str(error)
            found.append(FoundCollection(path.name, problem, layout.read_record(path)))
        return found, unsettled

    def settle(self, name: str) -> str:
        """Return why a collection can't be opened, or "" after removing its unused generations."""
        path = self._path / name
        try:
            unused = layout.unused_generations(path, layout.current_generation(path))
            self.collection(name)  # the others are deleted only if the current one can be read
            for other in unused:
                layout.remove_folder(other)
        except (CollectionDamagedError, OSError) as error:
            return str(error)
        return ""

    def write_record(self, name: str, record: Payload) -> None:
        """Keep a copy of a library's record in the folder of its collection."""
        if (self._path / name).is_dir():
            write_document(self._path / name / layout.RECORD_FILE, record)

    def read_identity(self) -> str:
        """Return the id of the installation; empty if the file is missing or damaged.

        Raises:
            NewerFormatError: a later version wrote the data folder.
        """
        try:
            content = read_document(layout.identity_path(self._path))
        except DamagedDocumentError:
            return ""
        return "" if content is None else str(content.get("installation_id", ""))

    def write_identity(self, installation_id: str) -> None:
        write_document(layout.identity_path(self._path), {"installation_id": installation_id})

    def create_index(self, name: str, field: str, field_type: FieldType) -> None:
        """Create an index unless the field has one."""
        shard = self.collection(name).shard
        if field not in shard.info().payload_schema:
            self.space.require()
            _create_index(shard, field, field_type)

    def drop_index(self, name: str, field: str) -> None:
        self.space.require_for_deletion()
        self.collection(name).shard.update(q.UpdateOperation.delete_field_index(field))

    def stats(self, name: str) -> CollectionStats:
        """Return the counts of a collection, without opening it if they are stored."""
        if name in self._problems:
            raise CollectionDamagedError(self._problems[name])
        if name in self._open:
            return self.collection(name).stats()
        stats = self._closed_stats.get(name)
        if stats is None:
            folder = self._path / name
            stats = read_counts(folder / str(layout.current_generation(folder)))
        if stats is not None:
            self._closed_stats[name] = stats
            return stats
        collection = self.collection(name)
        stats = collection.stats()
        write_counts(collection.path, stats)
        collection.counts_stored = True
        return stats

    def _forget(self, name: str) -> None:
        """Close a collection that is about to be moved or deleted."""
        self._closed_stats.pop(name, None)
        self._problems.pop(name, None)
        collection = self._open.pop(name, None)
        if collection is not None:
            collection.close()

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


def open_collection(folder: Path, policy: WritePolicy) -> Collection:
    """Open the generation in use.

    Raises:
        CollectionDamagedError: its files are missing or can't be read.
    """
    generation = layout.current_generation(folder)
    try:
        return Collection.open(folder, policy, generation)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the engine is a BaseException
        text = f"{type(error).__name__}: {error}"
        if any(f"os error {number}" in text for number in RESOURCE_ERRORS):
            raise
        raise CollectionDamagedError(f"{folder}: {text}") from error


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
