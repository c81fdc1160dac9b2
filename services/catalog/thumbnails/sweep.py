"""Removes orphaned thumbnails, which no entry refers to, in the background.

Orphans are the thumbnails of deleted libraries, and those that a crash or an unavailable store
left behind. A library counts as deleted only if the metadata says so: thumbnails of libraries that
are damaged, or that the metadata does not name, are kept. The Catalog sweeps the whole store when
it starts, once per interval, and a minute after a deletion failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta

from imagesearch_services.catalog.blobs import BlobInfo, BlobStore
from imagesearch_services.catalog.integrity import is_intact
from imagesearch_services.catalog.library.libraries import ABANDONED_AFTER_S, Libraries
from imagesearch_services.catalog.model import Library
from imagesearch_services.catalog.storage import Fields, Storage
from imagesearch_services.catalog.thumbnails.installation import ForeignStoreError, Installation
from imagesearch_services.catalog.thumbnails.store import (
    ThumbnailRef,
    ThumbnailStore,
    stored_thumbnails,
)
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.logs import logger

DELETED_KEPT_S = 7 * 24 * 3600.0
"""Minimum age of the record of a deletion that is removed, in seconds. A sweep that
finds no thumbnail of the library removes the record."""

RETRY_S = 60.0
"""Delay before a failed sweep or deletion is retried, in seconds."""


class Sweeper:
    """The sweep and the task that runs it."""

    def __init__(
        self,
        blobs: BlobStore,
        storage: Storage,
        libraries: Libraries,
        thumbnails: ThumbnailStore,
        installation: Installation,
        *,
        interval_s: float,
    ) -> None:
        self._blobs = blobs
        self._thumbnails = thumbnails
        self._installation = installation
        self._storage = storage
        self._libraries = libraries
        self._interval_s = interval_s
        # Other Catalogs may have written a blob and not yet the point that refers to it.
        self._min_age_s = 0.0 if storage.exclusive else ABANDONED_AFTER_S
        self._removed_libraries: list[str] = []
        self._next_sweep_s = 0.0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def remove_library(self, library_uid: str) -> None:
        """Schedule the removal of all thumbnails of a deleted library."""
        self._removed_libraries.append(library_uid)
        self._wake.set()

    def schedule_retry(self) -> None:
        """Schedule a sweep in `RETRY_S`, unless one is due before."""
        self._next_sweep_s = min(self._next_sweep_s, _now_s() + RETRY_S)
        self._wake.set()

    async def sweep(self) -> int:
        """Sweep the whole store; return the number of removed blobs.

        Raises:
            ServiceError: BLOB_STORE_UNAVAILABLE, STORAGE_UNAVAILABLE; some blobs may be removed.
            ForeignStoreError: the store belongs to another installation.
        """
        await self._installation.claim()
        count = 0
        await self._blobs.remove_unfinished(max(self._min_age_s, RETRY_S))
        deleted = await self._libraries.deleted()
        kept: Counter[str] = Counter()
        seen: set[str] = set()
        async for page in self._blobs.list_pages():
            refs = self._old_refs(page)
            seen |= refs.keys()
            count += await self._sweep_page(refs, kept)
        for library_uid, blob_count in kept.items():
            logger().warning(
                "thumbnail_sweep.unknown_library", uid=library_uid, kept_count=blob_count
            )
        forgotten_before = time.time() - DELETED_KEPT_S
        await self._libraries.forget_deleted(
            [
                uid
                for uid, time_s in deleted.items()
                if time_s < forgotten_before and uid not in seen
            ]
        )
        return count

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                while self._removed_libraries:
                    await self._remove_blobs(self._removed_libraries.pop())
                if _now_s() >= self._next_sweep_s:
                    self._next_sweep_s = _now_s() + self._interval_s
                    count = await self.sweep()
                    logger().info("thumbnail_sweep.finished", removed_count=count)
            except ForeignStoreError as error:
                logger().error("thumbnail_sweep.refused", error=str(error))
            except ServiceError as error:
                logger().warning("thumbnail_sweep.failed", error=error.message)
                self.schedule_retry()
            except Exception:  # noqa: BLE001  # an unexpected error must not end the task
                logger().exception("thumbnail_sweep.failed")
                self.schedule_retry()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._next_sweep_s - _now_s())):
                    await self._wake.wait()

    async def _remove_blobs(self, library_uid: str) -> None:
        async for page in self._blobs.list_pages(library_uid):
            await self._blobs.delete([blob.name for blob in page])

    def _old_refs(self, page: Sequence[BlobInfo]) -> dict[str, list[ThumbnailRef]]:
        """Return the thumbnails that no other Catalog may be writing, by library."""
        modified_before = datetime.now(UTC) - timedelta(seconds=self._min_age_s)
        by_library: defaultdict[str, list[ThumbnailRef]] = defaultdict(list)
        for blob in page:
            ref = ThumbnailRef.parse(blob.name)
            if ref is not None and blob.modified <= modified_before:
                by_library[ref.library_uid].append(ref)
        return by_library

    async def _sweep_page(
        self, by_library: Mapping[str, Sequence[ThumbnailRef]], kept: Counter[str]
    ) -> int:
        """Remove the orphans of a page; count in `kept` what can't be judged."""
        # Read the libraries and points after the blobs were listed. By now, the library of a listed
        # blob exists or was deleted, and the blob is pending, in use or an orphan.
        pending = self._thumbnails.pending
        libraries = {library.uid: library for library in await self._libraries.all()}
        deleted = await self._libraries.deleted()
        orphans: list[ThumbnailRef] = []
        for library_uid, refs in by_library.items():
            library = libraries.get(library_uid)
            if library is not None:
                orphans += await self._orphans(library, refs, pending, kept)
            elif library_uid in deleted:
                orphans += [ref for ref in refs if ref not in pending]
            else:
                # A library that was set aside, or whose metadata is lost: nothing says that it was
                # deleted.
                kept[library_uid] += len(refs)
        await self._blobs.delete([orphan.blob_name for orphan in orphans])
        return len(orphans)

    async def _orphans(
        self,
        library: Library,
        refs: Sequence[ThumbnailRef],
        pending: AbstractSet[ThumbnailRef],
        kept: Counter[str],
    ) -> list[ThumbnailRef]:
        """Return the thumbnails that no entry of a library refers to; none of a damaged one."""
        try:
            in_use = pending | await self._stored(library, refs)
        except ServiceError as error:
            if error.reason is not Reason.LIBRARY_DAMAGED:
                raise
            kept[library.uid] += len(refs)
            return []
        return [ref for ref in refs if ref not in in_use]

    async def _stored(self, library: Library, refs: Sequence[ThumbnailRef]) -> set[ThumbnailRef]:
        """Return the thumbnails that the entries of `refs` refer to now, or may refer to."""
        uids = list({ref.entry_uid for ref in refs})
        found = await self._storage.retrieve(library.uid, uids, Fields.THUMBNAIL)
        stored = set(stored_thumbnails(library.uid, found))
        doubtful = {ref.entry_uid for ref in refs if ref not in stored}
        doubtful &= {record.uid for record in found}
        if doubtful:
            # A damaged entry does not tell which thumbnail is its own.
            entries = await self._storage.retrieve(library.uid, list(doubtful), Fields.ENTRY)
            damaged = {record.uid for record in entries if not is_intact(record.payload)}
            stored |= {ref for ref in refs if ref.entry_uid in damaged}
        return stored


def _now_s() -> float:
    return asyncio.get_running_loop().time()
