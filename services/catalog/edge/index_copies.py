"""Copies of shards: an index is built in a copy, which then replaces its shard.

The Catalog copies the files of a flushed shard and starts the builder. Meanwhile the shard serves
reads and writes; the points written are transferred to the copy before it replaces the shard.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

import qdrant_edge as q

from imagesearch_services.catalog.disk import sync_tree
from imagesearch_services.catalog.edge.collection import Collection
from imagesearch_services.catalog.edge.data_folder import DataFolder
from imagesearch_services.catalog.edge.files import (
    disk_bytes,
    read_generation,
    write_generation,
)
from imagesearch_services.catalog.edge.layout import remove_folder
from imagesearch_services.catalog.failpoints import failpoint


class IndexCopies:
    """The copies of the collections in a data folder, at most one per collection."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder

    def prepare(self, name: str) -> tuple[Path, Path]:
        """Flush the shard. Returns its folder, and the path for its copy, which does not exist.

        Raises:
            OSError: ENOSPC: the disk lacks space for the copy and its index.
        """
        collection = self._folder.collection(name)
        # Space for the copy, and for the index built in it.
        self._folder.space.require(2 * disk_bytes(collection.path))
        collection.flush()
        # The counts of the copy change when its index is built.
        collection.forget_counts()
        if collection.copy_path.exists():
            shutil.rmtree(collection.copy_path)
        return collection.path, collection.copy_path

    def open(self, name: str) -> None:
        """Open the copy, whose index is complete."""
        collection = self._folder.collection(name)
        collection.copy = Collection.open(
            collection.folder, self._folder.policy, collection.generation + 1
        )

    def catch_up(self, name: str, uids: Sequence[bytes]) -> None:
        """Transfer the current state of points, deletions included, from the shard to the copy."""
        collection = self._folder.collection(name)
        copy = _open_copy(collection)
        ids: list[q.PointId] = [uuid.UUID(bytes=uid) for uid in uids]
        records = collection.shard.retrieve(ids, True, True)
        deleted = set(ids) - {record.id for record in records}
        if records:
            copy.upsert(
                [q.Point(record.id, record.vector or {}, record.payload) for record in records]
            )
        if deleted:
            copy.delete(list(deleted))

    def switch(self, name: str) -> None:
        """Replace the shard by its copy.

        The copy is durable before CURRENT names it. The shard's files are removed only after
        CURRENT durably names the copy.
        """
        collection = self._folder.collection(name)
        copy = _open_copy(collection)
        _copy_payload_indexes(collection.shard, copy.shard)
        copy.flush()
        failpoint("switch.after_flush")
        if self._folder.policy.durable:
            sync_tree(copy.path)
        removable = _make_current(copy)
        failpoint("switch.after_current")
        self._folder.replace(name, copy)
        collection.copy = None
        collection.close()
        if removable:
            remove_folder(collection.path)
        failpoint("switch.after_removal")

    def drop(self, name: str) -> None:
        """Close and remove the copy."""
        self._folder.collection(name).drop_copy()


def _copy_payload_indexes(shard: q.EdgeShard, copy: q.EdgeShard) -> None:
    """Give the copy the payload indexes that the shard has, which may be others than it had."""
    copied = copy.info().payload_schema
    current = shard.info().payload_schema
    for field in copied.keys() - current.keys():
        copy.update(q.UpdateOperation.delete_field_index(field))
    for field, index in current.items():
        if field not in copied or copied[field].data_type != index.data_type:
            schema = index.params or index.data_type
            copy.update(q.UpdateOperation.create_field_index(field, schema))


def _make_current(copy: Collection) -> bool:
    """Let CURRENT name the copy. Returns whether that is durable.

    If it is not, a power loss may leave either name, so both generations must stay. `GroupCommit`
    acknowledges no write to the copy before it has synced the folder of CURRENT.

    Raises:
        OSError: CURRENT names the old generation.
    """
    try:
        write_generation(copy.folder, copy.generation)
    except OSError:
        if read_generation(copy.folder) != copy.generation:
            raise
        return False
    return True


def _open_copy(collection: Collection) -> Collection:
    if collection.copy is None:
        raise RuntimeError(f"{collection.folder.name} has no open copy")
    return collection.copy
