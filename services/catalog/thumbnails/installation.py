"""The identity of an installation, and its claim to a blob store.

An installation has an id in its metadata and, with the embedded engine, in a file of the data
folder. The first installation that starts with a blob store writes its id into a blob; every other
installation refuses to start with that store and to sweep it. Otherwise two installations with the
same store could mistake each other's thumbnails for orphans. Catalogs that share an engine are one
installation. If several of them start for the first time at once, each may write an id; all of
these ids then belong to the installation.

A copy of the id that is lost or damaged is written again from the others. A store whose owner is
unknown, or can't be read, belongs to this installation if it holds thumbnails of its libraries,
whose uids are random.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence

from imagesearch_services.catalog.blobs import BlobStore, store_unavailable
from imagesearch_services.catalog.filters import Match
from imagesearch_services.catalog.integrity import intact_payloads, seal
from imagesearch_services.catalog.payloads import METADATA
from imagesearch_services.catalog.storage import Fields, NewerFormatError, Point, Storage
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.logs import logger

OWNER = "installation"
"""Name of the blob that holds the id of the installation that owns a store."""

KIND = "installation"
FORMAT = 1
"""Version of the stored data that this version writes. Data of a later version is refused."""
MAX_IDS = 1000
"""Maximum number of ids that are read."""

ID = re.compile(r"[0-9a-f]{32}\Z")


class ForeignStoreError(Exception):
    """The blob store belongs to another installation."""


class Installation:
    """This installation as the owner of its data folder and of its blob store."""

    def __init__(self, storage: Storage, blobs: BlobStore | None) -> None:
        self._storage = storage
        self._blobs = blobs

    async def identify(self) -> list[str]:
        """Return the ids of this installation, after writing those copies that are missing.

        Raises:
            NewerFormatError: a later version wrote the stored data.
            ServiceError: STORAGE_UNAVAILABLE.
        """
        known = await self._known_ids()
        kept = await self._storage.read_identity()
        if not ID.match(kept):
            kept = ""
        if kept and kept not in known:
            if known:
                logger().warning("installation.metadata_of_another_time", installation_id=kept)
            await self._add_id(kept)
            known = [kept, *known]
        if not known:
            known = [await self._adopted_id() or uuid.uuid4().hex]
            await self._add_id(known[0])
            known = list(dict.fromkeys([*known, *await self._known_ids()]))
        if kept not in known:
            try:
                await self._storage.write_identity(known[0])
            except ServiceError as error:  # no space: the next start writes it
                logger().warning("installation.identity_not_written", error=error.message)
        return known

    async def claim(self) -> None:
        """Check that this installation owns the store; take it if it has no owner.

        Raises:
            ForeignStoreError: another installation owns it.
            NewerFormatError: a later version wrote the stored data.
            ServiceError: BLOB_STORE_UNAVAILABLE, STORAGE_UNAVAILABLE; the owner is unknown.
        """
        ids = await self.identify()
        if self._blobs is None:
            return
        owner = await self._owner(self._blobs)
        if not owner or not await self._owns(owner, ids):
            if owner and not await self._has_our_blobs(self._blobs):
                raise _foreign_store(owner)
            if owner is not None:
                logger().warning("blob_store.owner_rewritten", found=owner[:80])
            await self._blobs.replace(OWNER, ids[0].encode())
            # Read it again: another installation may have written its id at the same moment.
            owner = await self._owner(self._blobs)
            if owner is None:
                raise store_unavailable()
            if not await self._owns(owner, ids):
                raise _foreign_store(owner)

    async def _adopted_id(self) -> str:
        """Return the owner of the store if it holds thumbnails of our libraries, else nothing."""
        if self._blobs is None:
            return ""
        owner = await self._owner(self._blobs)
        if owner is None or not ID.match(owner) or not await self._has_our_blobs(self._blobs):
            return ""
        return owner

    async def _owns(self, owner: str, ids: Sequence[str]) -> bool:
        """Return whether an owner is this installation, whose other Catalogs may add ids."""
        return owner in ids or owner in await self._known_ids()

    async def _has_our_blobs(self, blobs: BlobStore) -> bool:
        for collection in await self._storage.survey():
            async for page in blobs.list_pages(collection.name):
                if page:
                    return True
        return False

    async def _owner(self, blobs: BlobStore) -> str | None:
        (content,) = await blobs.get([OWNER])
        return None if content is None else content.decode(errors="replace").strip()

    async def _add_id(self, installation_id: str) -> None:
        payload = seal({"kind": KIND, "installation_id": installation_id, "format": FORMAT})
        point = Point(uuid.UUID(installation_id).bytes, {}, payload)
        await self._storage.upsert(METADATA, [point])

    async def _known_ids(self) -> list[str]:
        found = await self._storage.scroll(
            METADATA, Match("kind", (KIND,)), None, MAX_IDS, Fields.ALL
        )
        payloads = intact_payloads(found)
        _check_formats(payload.get("format", 0) for payload in payloads)
        return [payload["installation_id"] for payload in payloads]


def _foreign_store(owner: str) -> ForeignStoreError:
    return ForeignStoreError(
        f"the blob store belongs to another installation, {owner[:80]!r}; give each "
        "installation a folder, bucket or prefix of its own, or, if that installation no "
        f"longer exists, delete the blob {OWNER!r} and all other blobs of the store"
    )


def _check_formats(formats: Iterable[int]) -> None:
    newest = max(formats, default=0)
    if newest > FORMAT:
        raise NewerFormatError(
            f"the stored data has format {newest}, made by a later version; this version reads "
            f"formats up to {FORMAT}: install the later version again, since a downgrade is refused"
        )
