"""Small pictures of entries, and what keeps their blobs and the engine's points in step.

A blob is named after the library's uid, the entry's uid and a version that is drawn anew each time
one is kept; the entry's point tells the version. So no caller's words are part of a name, and an
entry that was replaced never shows the picture that it had before. The order of writing makes sure
that a point never names a blob that is not there:

    put     write the new blobs → write the points that name them → delete the old blobs
    delete  delete the points → delete their blobs

What a crash or a store that is away leaves behind are blobs that no point names. Nobody sees them,
and the sweep (`sweep.py`) removes them. Nobody waits for the store while holding a library: blobs
that no point names yet are on the way, and the sweep leaves them alone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from imagesearch_services.catalog.blobs import BlobStore
from imagesearch_services.common.errors import ServiceError

NAME = re.compile(r"([0-9a-f]{32})/[0-9a-f]{2}/([0-9a-f]{32})-([0-9a-f]{16})\.jpg\Z")

DELETED_TOGETHER = 1000

NOT_KEPT = "its small picture was not kept: the store of small pictures does not answer"


class Thumbnail(NamedTuple):
    """Which blob is an entry's small picture."""

    library_uid: str
    """32 hexadecimal digits."""
    entry_uid: bytes
    """16 bytes."""
    version: str
    """16 hexadecimal digits."""

    @property
    def blob(self) -> str:
        digits = self.entry_uid.hex()
        # In 256 folders, so that none of them gets too many files.
        return f"{self.library_uid}/{digits[:2]}/{digits}-{self.version}.jpg"

    @classmethod
    def new(cls, library_uid: str, entry_uid: bytes) -> Thumbnail:
        """Draw a version."""
        return cls(library_uid, entry_uid, secrets.token_hex(8))

    @classmethod
    def named(cls, blob: str) -> Thumbnail | None:
        """Read a name back; None where it is not one of ours."""
        parts = NAME.match(blob)
        if parts is None:
            return None
        return cls(parts[1], bytes.fromhex(parts[2]), parts[3])


class Thumbnails:
    """Keeps small pictures, where there is a store for them."""

    def __init__(self, blobs: BlobStore | None) -> None:
        self._blobs = blobs
        self._on_the_way: set[Thumbnail] = set()
        self.left_over: Callable[[], None] = lambda: None
        """Called when blobs may have been left that no point names."""

    @property
    def can_keep(self) -> bool:
        """Whether there is a store at all; it may not answer."""
        return self._blobs is not None

    @property
    def on_the_way(self) -> frozenset[Thumbnail]:
        """Those that points are about to name. Ask for it before asking for the points."""
        return frozenset(self._on_the_way)

    @asynccontextmanager
    async def keeping(self, files: Mapping[Thumbnail, bytes]) -> AsyncIterator[set[Thumbnail]]:
        """Write small pictures and give those that are kept, for points to name them now."""
        self._on_the_way |= files.keys()
        try:
            yield await self._keep(files)
        except BaseException:
            # How far the writing of points came is open.
            self.left_over()
            raise
        finally:
            self._on_the_way -= files.keys()

    async def _keep(self, files: Mapping[Thumbnail, bytes]) -> set[Thumbnail]:
        if self._blobs is None or not files:
            return set()
        stored = await self._blobs.put({each.blob: file for each, file in files.items()})
        kept = {each for each in files if each.blob in stored}
        if len(kept) < len(files):
            # One whose answer got lost may be there all the same.
            self.left_over()
        return kept

    async def read(self, thumbnails: Sequence[Thumbnail]) -> list[bytes | None]:
        """Return small pictures in the order asked; None for those that are not there.

        Raises:
            ServiceError: BLOB_STORE_UNAVAILABLE.
        """
        if self._blobs is None:
            return [None] * len(thumbnails)
        return await self._blobs.get([each.blob for each in thumbnails])

    async def drop(self, thumbnails: Sequence[Thumbnail]) -> None:
        """Delete small pictures that no point names any more; what fails is left to the sweep."""
        if self._blobs is None:
            return
        try:
            for start in range(0, len(thumbnails), DELETED_TOGETHER):
                page = thumbnails[start : start + DELETED_TOGETHER]
                await self._blobs.delete([each.blob for each in page])
        except ServiceError:
            self.left_over()
