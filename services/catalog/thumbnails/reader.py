"""Reads the thumbnails of entries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from imagesearch_services.catalog.blobs import store_unavailable
from imagesearch_services.catalog.library.libraries import Libraries
from imagesearch_services.catalog.model import Entry, Library, entry_uid
from imagesearch_services.catalog.storage import Fields, Storage
from imagesearch_services.catalog.thumbnails.store import (
    VERSION,
    ThumbnailRef,
    ThumbnailStore,
    stored_thumbnails,
)
from imagesearch_services.common.context import time_remaining_s
from imagesearch_services.common.errors import ServiceError, field_error

MAX_THUMBNAILS = 100
"""Maximum thumbnails per call."""
THUMBNAIL_TIME_SHARE = 0.8
"""Share of a query's remaining time that the thumbnails of its hits may take."""
MAX_WAIT_S = 60.0
"""Time from which that share is taken if the caller set no deadline; the store's is shorter."""


class Thumbnails:
    """The thumbnails of all libraries, by image id or for entries already read."""

    def __init__(self, storage: Storage, libraries: Libraries, store: ThumbnailStore) -> None:
        self._storage = storage
        self._libraries = libraries
        self._store = store

    async def get(self, library_id: str, library_uid: str, image_ids: Sequence[str]) -> list[bytes]:
        """Return thumbnails in the given order; empty where there is no thumbnail.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, LIBRARY_CHANGED, FIELD_INVALID, BLOB_STORE_UNAVAILABLE.
        """
        library = await self._libraries.get(library_id, uid=library_uid)
        if len(image_ids) > MAX_THUMBNAILS:
            raise field_error(
                "image_ids", f"must have at most {MAX_THUMBNAILS} items, not {len(image_ids)}"
            )
        uids = [entry_uid(image_id) for image_id in image_ids]
        files = await self._read(library, await self._refs(library, uids))
        return [files.get(uid, b"") for uid in uids]

    async def attach(self, library: Library, entries: Sequence[Entry]) -> ServiceError | None:
        """Set the thumbnails of entries; return the error that prevents it.

        The store gets a share of the remaining time, so that the entries can be returned
        without thumbnails if it does not answer.
        """
        refs = [
            ThumbnailRef(library.uid, entry.uid, entry.thumbnail_version)
            for entry in entries
            if VERSION.match(entry.thumbnail_version)
        ]
        try:
            async with asyncio.timeout(THUMBNAIL_TIME_SHARE * time_remaining_s(MAX_WAIT_S)):
                files = await self._read(library, refs)
        except TimeoutError:
            return store_unavailable()
        except ServiceError as error:
            return error
        for entry in entries:
            entry.thumbnail = files.get(entry.uid, b"")
        return None

    async def _read(self, library: Library, refs: Sequence[ThumbnailRef]) -> dict[bytes, bytes]:
        """Return thumbnails by the uids of their entries; missing thumbnails are left out."""
        files = await self._read_blobs(refs)
        missing = [ref.entry_uid for ref in refs if ref.entry_uid not in files]
        if missing:
            # The thumbnails were probably replaced after their points were read.
            files |= await self._read_blobs(await self._refs(library, missing))
        return files

    async def _read_blobs(self, refs: Sequence[ThumbnailRef]) -> dict[bytes, bytes]:
        refs = list(dict.fromkeys(refs))
        files = await self._store.read(refs) if refs else []
        return {
            ref.entry_uid: file for ref, file in zip(refs, files, strict=True) if file is not None
        }

    async def _refs(self, library: Library, uids: Sequence[bytes]) -> list[ThumbnailRef]:
        """Return the thumbnails that entries refer to now."""
        if not uids:
            return []
        async with self._libraries.detect_change(library):
            found = await self._storage.retrieve(
                library.uid, list(dict.fromkeys(uids)), Fields.THUMBNAIL
            )
        return stored_thumbnails(library.uid, found)
