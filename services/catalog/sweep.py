"""Removes small pictures that no entry names any more, in the background.

Such are all those of a deleted library, and what a crash or a store that was away left behind. The
Catalog looks through all of the store when it starts, once in an interval, and a minute after
something could not be deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from imagesearch_services.catalog.blobs import BlobInfo, BlobStore
from imagesearch_services.catalog.installation import ForeignStoreError, Installation
from imagesearch_services.catalog.libraries import HALF_DONE_S, Libraries
from imagesearch_services.catalog.model import Library
from imagesearch_services.catalog.storage import THUMBNAIL_KEY, Fields, Storage
from imagesearch_services.catalog.thumbnails import Thumbnail, Thumbnails
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.logs import logger

RETRY_S = 60.0
"""When to try again what failed."""


class Sweeper:
    """The sweep and its task."""

    def __init__(
        self,
        blobs: BlobStore,
        storage: Storage,
        libraries: Libraries,
        thumbnails: Thumbnails,
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
        # Other Catalogs may be between writing a blob and writing the point that names it.
        self._min_age_s = 0.0 if storage.exclusive else HALF_DONE_S
        self._gone: list[str] = []
        self._next_sweep_s = 0.0
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def library_gone(self, library_uid: str) -> None:
        """Remove all of a library that was deleted, soon."""
        self._gone.append(library_uid)
        self._woken.set()

    def left_over(self) -> None:
        """Look through everything again, in a while."""
        self._next_sweep_s = min(self._next_sweep_s, _now_s() + RETRY_S)
        self._woken.set()

    async def sweep(self) -> int:
        """Look through all of the store; return how many blobs were removed.

        Raises:
            ServiceError: BLOB_STORE_UNAVAILABLE, STORAGE_UNAVAILABLE; some may be removed.
            ForeignStoreError: the store belongs to another installation, and so may all in it.
        """
        await self._installation.claim()
        count = 0
        await self._blobs.remove_unfinished(max(self._min_age_s, RETRY_S))
        async for page in self._blobs.pages():
            count += await self._sweep_page(page)
        return count

    async def _run(self) -> None:
        while True:
            self._woken.clear()
            try:
                while self._gone:
                    await self._remove_library(self._gone.pop())
                if _now_s() >= self._next_sweep_s:
                    self._next_sweep_s = _now_s() + self._interval_s
                    count = await self.sweep()
                    logger().info("thumbnails swept", removed_count=count)
            except ForeignStoreError as error:
                logger().error("thumbnails are not swept", error=str(error))
            except ServiceError as error:
                logger().warning("sweeping thumbnails failed", error=error.message)
                self.left_over()
            except Exception:  # noqa: BLE001  # what is unforeseen must not end the sweeping
                logger().exception("sweeping thumbnails failed")
                self.left_over()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._next_sweep_s - _now_s())):
                    await self._woken.wait()

    async def _remove_library(self, library_uid: str) -> None:
        async for page in self._blobs.pages(library_uid):
            await self._blobs.delete([blob.name for blob in page])

    async def _sweep_page(self, page: Sequence[BlobInfo]) -> int:
        before = datetime.now(UTC) - timedelta(seconds=self._min_age_s)
        by_library: defaultdict[str, list[Thumbnail]] = defaultdict(list)
        for blob in page:
            thumbnail = Thumbnail.named(blob.name)
            if thumbnail is not None and blob.modified <= before:
                by_library[thumbnail.library_uid].append(thumbnail)
        # Asked for after the listing: a library whose blob was listed is there, or was deleted, and
        # a blob that was listed is on the way, or its point was written, or it never will be.
        on_the_way = self._thumbnails.on_the_way
        libraries = {library.uid: library for library in await self._libraries.all()}
        orphans: list[Thumbnail] = []
        for library_uid, thumbnails in by_library.items():
            library = libraries.get(library_uid)
            named = set() if library is None else await self._named(library, thumbnails)
            orphans += [each for each in thumbnails if each not in named | on_the_way]
        await self._blobs.delete([orphan.blob for orphan in orphans])
        return len(orphans)

    async def _named(self, library: Library, thumbnails: Sequence[Thumbnail]) -> set[Thumbnail]:
        """Return which small pictures the library's entries name now."""
        uids = list({each.entry_uid for each in thumbnails})
        found = await self._storage.retrieve(library.uid, uids, Fields.THUMBNAIL)
        return {
            Thumbnail(library.uid, record.uid, record.payload.get(THUMBNAIL_KEY, ""))
            for record in found
        }


def _now_s() -> float:
    return asyncio.get_running_loop().time()
