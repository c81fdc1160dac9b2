"""The small pictures of entries, read from wherever they lie."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from imagesearch_services.catalog.batch import named_thumbnails
from imagesearch_services.catalog.blobs import unavailable as blob_store_unavailable
from imagesearch_services.catalog.libraries import Libraries
from imagesearch_services.catalog.model import Entry, Library, entry_uid
from imagesearch_services.catalog.storage import Fields, Storage
from imagesearch_services.catalog.thumbnails import Thumbnail, Thumbnails
from imagesearch_services.common.context import time_remaining_s
from imagesearch_services.common.errors import ServiceError, field_error

MAX_THUMBNAILS = 100
"""Small pictures read in one call."""
THUMBNAIL_TIME_SHARE = 0.8
"""Of the time that is left to a query, what the small pictures of its hits may take."""
MOST_WAITED_S = 60.0
"""For them, where the caller set no deadline; the store's own is nearer."""


class SmallPictures:
    """Reads the small pictures of entries."""

    def __init__(self, storage: Storage, libraries: Libraries, thumbnails: Thumbnails) -> None:
        self._storage = storage
        self._libraries = libraries
        self._thumbnails = thumbnails

    async def get(self, library_id: str, library_uid: str, image_ids: Sequence[str]) -> list[bytes]:
        """Return small pictures in the order asked; empty for those that are not there.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, LIBRARY_CHANGED, FIELD_INVALID, BLOB_STORE_UNAVAILABLE.
        """
        library = await self._libraries.get(library_id, uid=library_uid)
        if len(image_ids) > MAX_THUMBNAILS:
            raise field_error("image_ids", f"must be at most {MAX_THUMBNAILS}")
        wanted = [entry_uid(image_id) for image_id in image_ids]
        named = await self._named(library, wanted)
        found = await self._read(library, named)
        return [found.get(uid, b"") for uid in wanted]

    async def show(self, library: Library, entries: Sequence[Entry]) -> ServiceError | None:
        """Give entries their small pictures; return why they can't be had.

        The entries are at hand already: the store gets a part of the time that is left, so that
        they can be answered without.
        """
        named = [
            Thumbnail(library.uid, entry.uid, entry.thumbnail_version)
            for entry in entries
            if entry.thumbnail_version
        ]
        try:
            async with asyncio.timeout(THUMBNAIL_TIME_SHARE * time_remaining_s(MOST_WAITED_S)):
                found = await self._read(library, named)
        except TimeoutError:
            return blob_store_unavailable()
        except ServiceError as error:
            return error
        for entry in entries:
            entry.thumbnail = found.get(entry.uid, b"")
        return None

    async def _read(self, library: Library, named: Sequence[Thumbnail]) -> dict[bytes, bytes]:
        """Read small pictures by the uids of their entries; what is lost is left out."""
        found = await self._read_files(named)
        lost = [each.entry_uid for each in named if each.entry_uid not in found]
        if lost:
            # Replaced, most likely, between the point that names it and the blob.
            found |= await self._read_files(await self._named(library, lost))
        return found

    async def _read_files(self, named: Sequence[Thumbnail]) -> dict[bytes, bytes]:
        named = list(dict.fromkeys(named))
        files = await self._thumbnails.read(named) if named else []
        return {
            each.entry_uid: file
            for each, file in zip(named, files, strict=True)
            if file is not None
        }

    async def _named(self, library: Library, uids: Sequence[bytes]) -> list[Thumbnail]:
        """Return which small pictures entries name now."""
        if not uids:
            return []
        async with self._libraries.steady(library):
            found = await self._storage.retrieve(
                library.uid, list(dict.fromkeys(uids)), Fields.THUMBNAIL
            )
        return named_thumbnails(library, found)
