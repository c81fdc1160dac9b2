"""Which installation a store of small pictures belongs to.

The sweep removes what no library of ours names, so two installations that kept their small pictures
in one place would remove each other's. The first one to start there leaves its id in a blob, and
no other starts, or sweeps, beside it. Catalogs that share an engine are one installation: its id
lies in the metadata collection. Where several of them start for the first time together, each may
write one, and the installation has several ids, all of them its own.
"""

from __future__ import annotations

import uuid

from imagesearch_services.catalog.blobs import BlobStore, unavailable
from imagesearch_services.catalog.filters import Match
from imagesearch_services.catalog.requests import METADATA
from imagesearch_services.catalog.storage import Fields, Point, Storage

OWNER = "installation"
"""Name of the blob with the id of the installation that a store belongs to."""

KIND = "installation"
MOST_IDS = 1000


class ForeignStoreError(Exception):
    """The store of small pictures belongs to another installation."""


class Installation:
    """This installation, as the owner of its store of small pictures."""

    def __init__(self, storage: Storage, blobs: BlobStore) -> None:
        self._storage = storage
        self._blobs = blobs

    async def claim(self) -> None:
        """Make sure that the store is ours, or make it ours where it is nobody's.

        Raises:
            ForeignStoreError: it is another installation's.
            ServiceError: BLOB_STORE_UNAVAILABLE, STORAGE_UNAVAILABLE; it is open whose it is.
        """
        ids = await self._ids()
        owner = await self._owner()
        if owner is None:
            await self._blobs.put({OWNER: ids[0].encode()})
            # Read again: another installation may have come at the same moment.
            owner = await self._owner()
            if owner is None:
                raise unavailable()
        if owner not in ids:
            raise ForeignStoreError(
                f"the small pictures there belong to another installation, {owner[:80]!r}: give "
                f"each installation a folder, bucket or prefix of its own, or remove {OWNER!r} "
                "from there if that installation is gone, and all that it left with it"
            )

    async def _owner(self) -> str | None:
        (content,) = await self._blobs.get([OWNER])
        return None if content is None else content.decode(errors="replace").strip()

    async def _ids(self) -> list[str]:
        """Return the ids of this installation, which gets one at its first start."""
        if known := await self._known_ids():
            return known
        made = uuid.uuid4()
        payload = {"kind": KIND, "installation_id": made.hex}
        await self._storage.upsert(METADATA, [Point(made.bytes, {}, payload)])
        return [made.hex, *await self._known_ids()]

    async def _known_ids(self) -> list[str]:
        found = await self._storage.scroll(
            METADATA, Match("kind", (KIND,)), None, MOST_IDS, Fields.ALL
        )
        return [record.payload["installation_id"] for record in found]
