"""Storing entries."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from imagesearch_services.catalog.answered_requests import check_request_id
from imagesearch_services.catalog.entry.batch import Batch, PutItem
from imagesearch_services.catalog.entry.checks import check_entry
from imagesearch_services.catalog.entry.tag_types import TagTypes, tag_types_for
from imagesearch_services.catalog.entry.vector_checks import check_entry_vectors
from imagesearch_services.catalog.failpoints import failpoint
from imagesearch_services.catalog.library.libraries import Libraries
from imagesearch_services.catalog.model import MAX_BATCH, Entry, Library
from imagesearch_services.catalog.storage import Fields, Storage
from imagesearch_services.catalog.tasks import ShieldedTasks
from imagesearch_services.catalog.thumbnails.store import ThumbnailRef, ThumbnailStore
from imagesearch_services.common.errors import ServiceError, field_error

THUMBNAIL_NOT_KEPT = "the thumbnail was not kept: the blob store does not answer"
"""Warning of an entry that was stored without its thumbnail."""


class Puts:
    """Stores the entries of PutEntries calls."""

    def __init__(
        self,
        storage: Storage,
        libraries: Libraries,
        shielded: ShieldedTasks,
        thumbnails: ThumbnailStore,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._libraries = libraries
        self._shielded = shielded
        self._thumbnails = thumbnails
        self._clock = clock

    async def put(
        self, library_id: str, library_uid: str, items: Sequence[PutItem | ServiceError]
    ) -> list[Entry | ServiceError]:
        """Store entries in the given order; each succeeds or fails on its own.

        Args:
            library_id: where to store.
            library_uid: if not empty, the uid that the library must have.
            items: entries, or the errors of entries that could not be read, which are returned.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, LIBRARY_CHANGED; FIELD_INVALID for too many items;
                STORAGE_FULL: no entry was stored.
        """
        library = await self._libraries.get(library_id, uid=library_uid)
        if not 1 <= len(items) <= MAX_BATCH:
            raise field_error("entries", f"must have 1 to {MAX_BATCH} items, not {len(items)}")
        return await self._shielded.run(self._put(library, check_items(library, items)))

    async def _put(
        self, library: Library, items: Sequence[PutItem | ServiceError]
    ) -> list[Entry | ServiceError]:
        await self._storage.check_space()
        items = await self._with_thumbnail_refs(library, items)
        files = {
            item.thumbnail: item.entry.thumbnail
            for item in items
            if isinstance(item, PutItem) and item.thumbnail is not None
        }
        async with self._thumbnails.writing(files) as stored:
            failpoint("put.after_blobs")
            results, orphaned = await self._write(library, items, stored)
            failpoint("put.after_points")
        await self._thumbnails.delete(orphaned)
        failpoint("put.after_orphans")
        for item, result in zip(items, results, strict=True):
            if isinstance(item, PutItem) and isinstance(result, Entry):
                result.warnings = self._warnings(library, item.entry, result)
        return results

    async def _with_thumbnail_refs(
        self, library: Library, items: Sequence[PutItem | ServiceError]
    ) -> Sequence[PutItem | ServiceError]:
        """Name the thumbnails of the items that will be stored as far as is known now.

        No other call waits for the blob store, so this is decided without the write lock, and again
        under it. A thumbnail whose item is refused then is deleted again: where another call was
        faster, and for tags, whose types are checked under the lock.
        """
        entries = [item.entry for item in items if isinstance(item, PutItem)]
        if (
            not self._thumbnails.enabled
            or library.thumbnails_disabled
            or not any(entry.thumbnail for entry in entries)
        ):
            return items
        any_type = TagTypes(library, sys.maxsize, unused=library.tag_types.keys())
        async with self._libraries.detect_change(library):
            batch = await self._batch(library, entries, any_type, frozenset())
        named: list[PutItem | ServiceError] = []
        for item in items:
            if isinstance(item, PutItem) and batch.accepts(item) and item.entry.thumbnail:
                ref = ThumbnailRef.new(library.uid, item.entry.uid, item.entry.thumbnail)
                named.append(replace(item, thumbnail=ref))
            else:
                named.append(item)
        return named

    async def _write(
        self,
        library: Library,
        items: Sequence[PutItem | ServiceError],
        stored_thumbnails: AbstractSet[ThumbnailRef],
    ) -> tuple[list[Entry | ServiceError], list[ThumbnailRef]]:
        """Write the points of valid items; return the results and the orphaned thumbnails."""
        async with self._libraries.write_lock(library.library_id):
            library = await self._libraries.get(library.library_id, uid=library.uid)
            entries = [item.entry for item in items if isinstance(item, PutItem)]
            types = await tag_types_for(entries, library, self._libraries, self._storage)
            batch = await self._batch(library, entries, types, stored_thumbnails)
            results = [batch.add(item) if isinstance(item, PutItem) else item for item in items]
            await self._libraries.register_fields(
                library, types.changes, frozenset(batch.new_attributes)
            )
            if batch.points:
                await self._storage.upsert(library.uid, list(batch.points.values()))
        return results, batch.orphaned_thumbnails()

    async def _batch(
        self,
        library: Library,
        entries: Sequence[Entry],
        types: TagTypes,
        stored_thumbnails: AbstractSet[ThumbnailRef],
    ) -> Batch:
        """Return an empty batch that knows what is stored under the ids of the entries."""
        batch = Batch(library, types, round(self._clock(), 6), stored_thumbnails)
        if entries:
            uids = list(dict.fromkeys(entry.uid for entry in entries))
            batch.set_existing(await self._storage.retrieve(library.uid, uids, Fields.ENTRY))
            if library.capacity:
                stats = await self._storage.stats(library.uid)
                batch.room = library.capacity - stats.point_count
        return batch

    def _warnings(self, library: Library, sent: Entry, stored: Entry) -> tuple[str, ...]:
        expected = sent.thumbnail and not library.thumbnails_disabled and self._thumbnails.enabled
        return (THUMBNAIL_NOT_KEPT,) if expected and not stored.thumbnail_version else ()


def check_items(
    library: Library, items: Sequence[PutItem | ServiceError]
) -> list[PutItem | ServiceError]:
    """Return the items, each invalid item replaced by its error."""
    checked = list(items)
    valid: list[tuple[int, PutItem]] = []
    for number, item in enumerate(items):
        if isinstance(item, ServiceError):
            continue
        try:
            check_entry(f"entries[{number}]", item.entry)
            check_request_id(f"request_ids[{number}]", item.request_id)
        except ServiceError as error:
            checked[number] = error
        else:
            valid.append((number, item))
    errors = check_entry_vectors(
        library,
        [f"entries[{number}]" for number, _ in valid],
        [item.entry for _, item in valid],
    )
    for (number, _), vector_error in zip(valid, errors, strict=True):
        if vector_error is not None:
            checked[number] = vector_error
    return checked
