"""Metadata points of libraries: one point per library, with its state.

The state is `creating` until the library's collection exists, then `ready`. It is `deleting`
from before the collection is dropped until the point itself is deleted. A library that a crash
left in `creating` or `deleting` is never returned, and is removed at the next start.

A deleted library leaves a record of its deletion. Only that, and a state that a crash left, lets a
start or a sweep delete what belongs to the library: without a record, its data is kept.

Where the storage has files, each collection holds a copy of its library's record. The copy is
written after the record, so it is as old or older, unless the metadata was replaced by a backup.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from imagesearch_services.catalog.answered_requests import AnsweredRequests, RequestKey
from imagesearch_services.catalog.filters import AllOf, Match
from imagesearch_services.catalog.integrity import intact_payloads, seal
from imagesearch_services.catalog.model import ENTRY_NAMESPACE, Library
from imagesearch_services.catalog.payloads import (
    METADATA,
    METADATA_INDEXES,
    library_from_payload,
    library_to_payload,
)
from imagesearch_services.catalog.storage import Fields, Payload, Point, Storage
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.logs import logger

READY, CREATING, DELETING = "ready", "creating", "deleting"

SCROLL_POINTS = 256

LIBRARIES = Match("kind", ("library",))

DELETED_KIND = "deleted_library"
DELETED = Match("kind", (DELETED_KIND,))


class LibraryRecords:
    """Reads and writes the metadata points of libraries.

    Where no other process writes to the storage, libraries that are ready are cached.
    """

    def __init__(
        self, storage: Storage, requests: AnsweredRequests, *, clock: Callable[[], float]
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._requests = requests
        self._cache: dict[str, Library] | None = {} if storage.exclusive else None
        self._uncertain: set[str] = set()
        """Libraries whose last write failed, although the engine may have executed it. They are
        read from the storage until the next write."""
        self._ids: dict[str, str] = {}
        """Library ids by uid, of all libraries read or written so far."""

    async def load(self) -> list[tuple[Library, str]]:
        """Return every library with its state, and fill the cache."""
        records = [self._library(payload) async for payload in self._scroll(LIBRARIES)]
        if self._cache is not None:
            self._cache = {
                library.library_id: library for library, state in records if state == READY
            }
        return records

    async def find(self, library_id: str) -> Library | None:
        """Return a library that is ready."""
        if self._cache is not None and library_id not in self._uncertain:
            return self._cache.get(library_id)
        found = await self.read(library_id)
        return None if found is None or found[1] != READY else found[0]

    def library_id(self, uid: str) -> str | None:
        """Return the id of the library with this uid, if it was read before."""
        return self._ids.get(uid)

    async def all(self) -> list[Library]:
        """Return every library that is ready, in any order."""
        if self._cache is not None:
            certain = [
                library for name, library in self._cache.items() if name not in self._uncertain
            ]
            found = [await self.find(name) for name in sorted(self._uncertain)]
            return certain + [library for library in found if library is not None]
        ready = AllOf((LIBRARIES, Match("state", (READY,))))
        return [library_from_payload(payload) async for payload in self._scroll(ready)]

    async def read(self, library_id: str) -> tuple[Library, str] | None:
        """Return a library in any state, with its state, from the storage."""
        found = await self._storage.retrieve(METADATA, [_uid(library_id)], Fields.ALL)
        payloads = intact_payloads(found)
        return self._library(payloads[0]) if payloads else None

    async def write(self, library: Library, state: str, key: RequestKey | None = None) -> None:
        """Write a library, together with the answer to the request that `key` identifies."""
        library = replace(library, revision=self._last_revision(library) + 1)
        self._ids[library.uid] = library.library_id
        payload = seal(library_to_payload(library, state))
        points = [Point(_uid(library.library_id), {}, payload)]
        if key is not None:
            points += self._requests.answer_points(key, payload)
        try:
            await self._storage.upsert(METADATA, points)
        except BaseException:
            self._uncertain.add(library.library_id)
            raise
        self._uncertain.discard(library.library_id)
        self._remember(library.library_id, library if state == READY else None)
        if state == READY:
            await self.write_copy(library)
        await self._requests.prune()

    def _remember(self, library_id: str, library: Library | None) -> None:
        if self._cache is None:
            return
        if library is None:
            self._cache.pop(library_id, None)
        else:
            self._cache[library_id] = library

    async def write_copy(self, library: Library) -> None:
        """Keep a copy of a library's record with its collection; a start makes up for a failure."""
        try:
            await self._storage.write_record(library.uid, library_to_payload(library, READY))
        except ServiceError as error:
            logger().warning(
                "catalog.record_not_copied", library=library.library_id, error=error.message
            )

    async def delete(self, library: Library) -> None:
        """Delete a library's record, after recording that the library was deleted."""
        payload = {
            "kind": DELETED_KIND,
            "library_uid": library.uid,
            "library_id": library.library_id,
            "deleted_at": self._clock(),
        }
        point = Point(_deleted_uid(library.uid), {}, seal(payload))
        await self._storage.upsert(METADATA, [point])
        await self._storage.delete(METADATA, [_uid(library.library_id)])

    async def deleted(self) -> dict[str, float]:
        """Return the times of the deletions on record, by the uid of the library."""
        return {
            payload["library_uid"]: payload["deleted_at"] async for payload in self._scroll(DELETED)
        }

    async def forget_deleted(self, library_uids: Sequence[str]) -> None:
        """Remove the records of deletions of which nothing is left."""
        await self._storage.delete(METADATA, [_deleted_uid(uid) for uid in library_uids])

    def _last_revision(self, library: Library) -> int:
        known = None if self._cache is None else self._cache.get(library.library_id)
        if known is None or known.uid != library.uid:
            return library.revision
        return max(known.revision, library.revision)

    def _library(self, payload: Payload) -> tuple[Library, str]:
        library = library_from_payload(payload)
        self._ids[library.uid] = library.library_id
        return library, payload["state"]

    async def _scroll(self, where: Match | AllOf) -> AsyncIterator[Payload]:
        after = None
        while True:
            found = await self._storage.scroll(METADATA, where, after, SCROLL_POINTS, Fields.ALL)
            for payload in intact_payloads(found):
                yield payload
            if len(found) < SCROLL_POINTS:
                return
            after = found[-1].uid


async def open_metadata(storage: Storage) -> None:
    """Open the metadata collection; replace it by an empty one if it is damaged."""
    try:
        await _open(storage)
    except ServiceError as error:
        if error.reason is not Reason.LIBRARY_DAMAGED:
            raise
        place = await storage.set_aside(METADATA)
        logger().error("catalog.metadata_damaged", moved_to=place)
        await _open(storage)


async def _open(storage: Storage) -> None:
    await storage.create_collection(METADATA, (), METADATA_INDEXES)
    for field, field_type in METADATA_INDEXES.items():
        # A collection of an earlier version may lack later indexes.
        await storage.create_index(METADATA, field, field_type)


def _deleted_uid(library_uid: str) -> bytes:
    return uuid.uuid5(ENTRY_NAMESPACE, f"deleted:{library_uid}").bytes


def _uid(library_id: str) -> bytes:
    return uuid.uuid5(ENTRY_NAMESPACE, f"library:{library_id}").bytes
