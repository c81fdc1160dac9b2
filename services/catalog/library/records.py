"""Metadata points of libraries: one point per library, with its state.

The state is `creating` until the library's collection exists, then `ready`. It is `deleting`
from before the collection is dropped until the point itself is deleted. A library that a crash
left in `creating` or `deleting` is never returned, and is removed at the next start.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

from imagesearch_services.catalog.answered_requests import AnsweredRequests, RequestKey
from imagesearch_services.catalog.filters import AllOf, Match
from imagesearch_services.catalog.model import ENTRY_NAMESPACE, Library
from imagesearch_services.catalog.payloads import (
    METADATA,
    METADATA_INDEXES,
    library_from_payload,
    library_to_payload,
)
from imagesearch_services.catalog.storage import Fields, Payload, Point, Storage

READY, CREATING, DELETING = "ready", "creating", "deleting"

SCROLL_POINTS = 256

LIBRARIES = Match("kind", ("library",))


class LibraryRecords:
    """Reads and writes the metadata points of libraries.

    Where no other process writes to the storage, libraries that are ready are cached.
    """

    def __init__(self, storage: Storage, requests: AnsweredRequests) -> None:
        self._storage = storage
        self._requests = requests
        self._cache: dict[str, Library] | None = {} if storage.exclusive else None
        self._uncertain: set[str] = set()
        """Libraries whose last write failed, although the engine may have executed it. They are
        read from the storage until the next write."""

    async def load(self) -> list[tuple[Library, str]]:
        """Open the metadata collection; return every library with its state, and fill the cache."""
        await self._storage.create_collection(METADATA, (), METADATA_INDEXES)
        for field, field_type in METADATA_INDEXES.items():
            # A collection of an earlier version may lack later indexes.
            await self._storage.create_index(METADATA, field, field_type)
        records = [
            (library_from_payload(payload), payload["state"])
            async for payload in self._scroll(LIBRARIES)
        ]
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
        if not found:
            return None
        payload = found[0].payload
        return library_from_payload(payload), payload["state"]

    async def write(self, library: Library, state: str, key: RequestKey | None = None) -> None:
        """Write a library, together with the answer to the request that `key` identifies."""
        payload = library_to_payload(library, state)
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
        await self._requests.prune()

    def _remember(self, library_id: str, library: Library | None) -> None:
        if self._cache is None:
            return
        if library is None:
            self._cache.pop(library_id, None)
        else:
            self._cache[library_id] = library

    async def delete(self, library: Library) -> None:
        await self._storage.delete(METADATA, [_uid(library.library_id)])

    async def _scroll(self, where: Match | AllOf) -> AsyncIterator[Payload]:
        after = None
        while True:
            found = await self._storage.scroll(METADATA, where, after, SCROLL_POINTS, Fields.ALL)
            for record in found:
                yield record.payload
            if len(found) < SCROLL_POINTS:
                return
            after = found[-1].uid


def _uid(library_id: str) -> bytes:
    return uuid.uuid5(ENTRY_NAMESPACE, f"library:{library_id}").bytes
