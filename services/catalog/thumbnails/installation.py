"""Ensures that a blob store belongs to one installation only.

The sweep removes blobs that no library of this installation refers to, so two installations
with the same store would remove each other's thumbnails. The first installation that starts
with a store writes its id into a blob, and every other installation refuses to start with it and
to sweep it. Catalogs that share an engine are one installation, whose id is in the metadata
collection. If several of them start for the first time at once, each may write an id; all of
these ids then belong to the installation.
"""

from __future__ import annotations

import uuid

from imagesearch_services.catalog.blobs import BlobStore, store_unavailable
from imagesearch_services.catalog.filters import Match
from imagesearch_services.catalog.payloads import METADATA
from imagesearch_services.catalog.storage import Fields, Point, Storage

OWNER = "installation"
"""Name of the blob that holds the id of the installation that owns a store."""

KIND = "installation"
MAX_IDS = 1000
"""Maximum number of ids that are read."""


class ForeignStoreError(Exception):
    """The blob store belongs to another installation."""


class Installation:
    """This installation as the owner of its blob store."""

    def __init__(self, storage: Storage, blobs: BlobStore) -> None:
        self._storage = storage
        self._blobs = blobs

    async def claim(self) -> None:
        """Check that this installation owns the store; take it if it has no owner.

        Raises:
            ForeignStoreError: another installation owns it.
            ServiceError: BLOB_STORE_UNAVAILABLE, STORAGE_UNAVAILABLE; the owner is unknown.
        """
        ids = await self._ids()
        owner = await self._owner()
        if owner is None:
            await self._blobs.put({OWNER: ids[0].encode()})
            # Read it again: another installation may have written its id at the same moment.
            owner = await self._owner()
            if owner is None:
                raise store_unavailable()
        if owner not in ids:
            raise ForeignStoreError(
                f"the blob store belongs to another installation, {owner[:80]!r}; give each "
                "installation a folder, bucket or prefix of its own, or, if that installation no "
                f"longer exists, delete the blob {OWNER!r} and all other blobs of the store"
            )

    async def _owner(self) -> str | None:
        (content,) = await self._blobs.get([OWNER])
        return None if content is None else content.decode(errors="replace").strip()

    async def _ids(self) -> list[str]:
        """Return the ids of this installation; create one at its first start."""
        if known := await self._known_ids():
            return known
        new = uuid.uuid4()
        payload = {"kind": KIND, "installation_id": new.hex}
        await self._storage.upsert(METADATA, [Point(new.bytes, {}, payload)])
        return [new.hex, *await self._known_ids()]

    async def _known_ids(self) -> list[str]:
        found = await self._storage.scroll(
            METADATA, Match("kind", (KIND,)), None, MAX_IDS, Fields.ALL
        )
        return [record.payload["installation_id"] for record in found]
