"""What a start does with the collections it finds: it deletes only what a record says to delete.

| the metadata says | the collection | what the start does |
|---|---|---|
| ready | is there | serves it; the newer of the record and its copy replaces the other |
| ready | is missing | brings it back from the quarantine, else reports the library as damaged |
| creating, by a crash | has no copy of its record | removes the library |
| creating, in an old backup | has a copy of its record | serves it |
| deleting, or deleted | is there | removes it |
| nothing | has a copy of its record | serves it: the metadata is lost or from a backup |
| nothing | has no copy of its record | sets it aside, in the quarantine |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from imagesearch_services.catalog.library.records import CREATING, READY, LibraryRecords
from imagesearch_services.catalog.model import Library
from imagesearch_services.catalog.payloads import METADATA, library_from_payload
from imagesearch_services.catalog.storage import FoundCollection, Payload, Storage
from imagesearch_services.common.logs import logger


class Recovery:
    """Makes the metadata and the collections agree."""

    def __init__(
        self,
        storage: Storage,
        records: LibraryRecords,
        remove: Callable[[Library], Awaitable[None]],
        is_abandoned: Callable[[Library], bool],
    ) -> None:
        self._storage = storage
        self._records = records
        self._remove = remove
        self._is_abandoned = is_abandoned

    async def run(self) -> None:
        """Apply the table above."""
        libraries = await self._records.load()
        found = {each.name: each for each in await self._storage.survey() if each.name != METADATA}
        for library, state in libraries:
            collection = found.pop(library.uid, None)
            copy = None if collection is None else read_copy(collection)
            if state == READY or (state == CREATING and copy is not None):
                await self._keep(library, state, collection, copy)
            elif self._is_abandoned(library):
                await self._remove(library)
        if not self._storage.exclusive:
            return  # the other collections may belong to another Catalog
        deleted = await self._records.deleted()
        names = {library.library_id for library, _ in libraries}
        for collection in found.values():
            if collection.name in deleted:
                await self._storage.drop_collection(collection.name)
            else:
                await self._take_in(collection, names)

    async def _keep(
        self,
        library: Library,
        state: str,
        collection: FoundCollection | None,
        copy: Library | None,
    ) -> None:
        if collection is None and await self._storage.bring_back(library.uid):
            logger().warning("catalog.library_brought_back", library=library.library_id)
        elif collection is None or collection.problem:
            problem = "its collection is missing" if collection is None else collection.problem
            logger().error(
                "catalog.library_damaged",
                library=library.library_id,
                uid=library.uid,
                error=problem,
            )
            return
        latest = copy if copy is not None and copy.revision > library.revision else library
        if latest != library or state != READY:
            logger().warning("catalog.record_restored", library=library.library_id)
            await self._records.write(latest, READY)
        elif latest != copy:
            await self._records.write_copy(latest)

    async def _take_in(self, collection: FoundCollection, names: set[str]) -> None:
        """Serve a collection that the metadata does not name, or set it aside."""
        library = read_copy(collection)
        if library is not None and not collection.problem and library.library_id not in names:
            names.add(library.library_id)
            await self._records.write(library, READY)
            logger().warning(
                "catalog.library_restored", library=library.library_id, uid=library.uid
            )
            return
        place = await self._storage.set_aside(collection.name)
        logger().error(
            "catalog.unknown_collection",
            collection=collection.name,
            library=None if library is None else library.library_id,
            moved_to=place or None,
            hint="run `imagesearch catalog check`",
        )


def read_copy(collection: FoundCollection) -> Library | None:
    """Return the library of a collection's copy of its record; None if it is of no use."""
    return None if collection.record is None else library_of(collection.record, collection.name)


def library_of(record: Payload, uid: str) -> Library | None:
    """Return the library of a record with this uid; None if the record can't be read."""
    try:
        library = library_from_payload(record)
    except (KeyError, TypeError, ValueError):
        return None
    return library if library.uid == uid else None
