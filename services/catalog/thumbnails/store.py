"""Writes, reads and deletes thumbnails, and keeps their blobs consistent with the entries' points.

A blob is named after the library's uid, the entry's uid and a version drawn at random for each
write; the entry's point holds the version. So a blob name contains no text of a caller, and a
replaced entry never shows its earlier picture. The order of writes guarantees that a point never
refers to a blob that does not exist:

    put     write the new blobs → write the points that refer to them → delete the old blobs
    delete  delete the points → delete their blobs

A crash, or a store that does not answer, leaves orphans: blobs that no point refers to. They are
never shown, and the sweep (`sweep`) removes them. No caller waits for the store while it
holds the write lock of a library: blobs whose points are not written yet are pending, and the
sweep skips them.
"""

from __future__ import annotations

import re
import secrets
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from imagesearch_services.catalog.blobs import BlobStore
from imagesearch_services.catalog.storage import THUMBNAIL_KEY, Record
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.logs import logger

BLOB_NAME = re.compile(
    r"([0-9a-f]{32})/[0-9a-f]{2}/([0-9a-f]{32})-([0-9a-f]{16}|[0-9a-f]{24})\.jpg\Z"
)
VERSION = re.compile(r"[0-9a-f]{16}([0-9a-f]{8})?\Z")
"""16 random hexadecimal digits, then the CRC-32 of the file, which earlier versions lack."""

DELETE_BATCH = 1000
"""Blobs deleted per call of the store."""


class ThumbnailRef(NamedTuple):
    """Reference to the blob of an entry's thumbnail."""

    library_uid: str
    """32 hexadecimal digits."""
    entry_uid: bytes
    """16 bytes."""
    version: str
    """See `VERSION`."""

    @property
    def blob_name(self) -> str:
        digits = self.entry_uid.hex()
        # Blobs are spread over 256 folders, which limits the number of files per folder.
        return f"{self.library_uid}/{digits[:2]}/{digits}-{self.version}.jpg"

    @classmethod
    def new(cls, library_uid: str, entry_uid: bytes, file: bytes) -> ThumbnailRef:
        """Return a reference to a file, with a version of its own."""
        return cls(library_uid, entry_uid, f"{secrets.token_hex(8)}{zlib.crc32(file):08x}")

    def matches(self, file: bytes) -> bool:
        """Return whether a file is the one referred to: not empty, and with its checksum."""
        checksum = self.version[16:]
        return bool(file) and (not checksum or int(checksum, 16) == zlib.crc32(file))

    @classmethod
    def parse(cls, blob_name: str) -> ThumbnailRef | None:
        """Return the reference with this blob name; None for names of other files."""
        parts = BLOB_NAME.match(blob_name)
        if parts is None:
            return None
        return cls(parts[1], bytes.fromhex(parts[2]), parts[3])


def stored_thumbnails(library_uid: str, records: Iterable[Record]) -> list[ThumbnailRef]:
    """Return the thumbnails that records refer to."""
    return [
        ThumbnailRef(library_uid, record.uid, record.payload[THUMBNAIL_KEY])
        for record in records
        if VERSION.match(str(record.payload.get(THUMBNAIL_KEY)))
    ]


class ThumbnailStore:
    """Thumbnails by reference; without a blob store it keeps none."""

    def __init__(self, blobs: BlobStore | None) -> None:
        self._blobs = blobs
        self._pending: set[ThumbnailRef] = set()
        self.on_orphans: Callable[[], None] = lambda: None
        """Called when blobs may exist that no point refers to."""

    @property
    def enabled(self) -> bool:
        """Whether there is a blob store, which may still fail to answer."""
        return self._blobs is not None

    @property
    def pending(self) -> frozenset[ThumbnailRef]:
        """Thumbnails whose points are about to be written. Read it before reading points."""
        return frozenset(self._pending)

    @asynccontextmanager
    async def writing(
        self, files: Mapping[ThumbnailRef, bytes]
    ) -> AsyncIterator[set[ThumbnailRef]]:
        """Write thumbnails and yield those stored; write the points that refer to them inside."""
        self._pending |= files.keys()
        try:
            yield await self._write(files)
        except ServiceError as error:
            if error.reason is Reason.STORAGE_FULL:
                await self.delete(list(files))  # no point was written
            else:
                self.on_orphans()
            raise
        except BaseException:
            # The points may or may not have been written.
            self.on_orphans()
            raise
        finally:
            self._pending -= files.keys()

    async def _write(self, files: Mapping[ThumbnailRef, bytes]) -> set[ThumbnailRef]:
        if self._blobs is None or not files:
            return set()
        names = await self._blobs.put({ref.blob_name: file for ref, file in files.items()})
        stored = {ref for ref in files if ref.blob_name in names}
        if len(stored) < len(files):
            # A blob whose acknowledgment was lost may exist.
            self.on_orphans()
        return stored

    async def read(self, refs: Sequence[ThumbnailRef]) -> list[bytes | None]:
        """Return thumbnails in the given order; None where a blob is missing or damaged.

        Raises:
            ServiceError: BLOB_STORE_UNAVAILABLE.
        """
        if self._blobs is None:
            return [None] * len(refs)
        files = await self._blobs.get([ref.blob_name for ref in refs])
        checked: list[bytes | None] = []
        for ref, file in zip(refs, files, strict=True):
            damaged = file is not None and not ref.matches(file)
            if damaged:
                logger().error("thumbnail.damaged", blob=ref.blob_name)
            checked.append(None if damaged else file)
        return checked

    async def delete(self, refs: Sequence[ThumbnailRef]) -> None:
        """Delete thumbnails that no point refers to; leave failures to the sweep."""
        if self._blobs is None:
            return
        try:
            for start in range(0, len(refs), DELETE_BATCH):
                batch = refs[start : start + DELETE_BATCH]
                await self._blobs.delete([ref.blob_name for ref in batch])
        except ServiceError:
            self.on_orphans()
