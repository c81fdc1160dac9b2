"""Libraries: their making, changing and going, each safe against a kill in the middle.

A library's metadata is a point in the metadata collection with a state. `creating` is written
before its collection is made and `ready` after; `deleting` is written before its collection
goes, and the point goes last. What a crash leaves in `creating` or `deleting` is removed at
the next start, and is never seen as a library.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from imagesearch_services.catalog import paging
from imagesearch_services.catalog.filters import AllOf, Match, Not
from imagesearch_services.catalog.model import (
    ENTRY_NAMESPACE,
    FieldType,
    Library,
    LibraryStats,
    VectorSpace,
)
from imagesearch_services.catalog.payloads import (
    ENTRY_INDEXES,
    METADATA_INDEXES,
    library_from_payload,
    library_to_payload,
)
from imagesearch_services.catalog.rejections import forget_library_pairs
from imagesearch_services.catalog.requests import METADATA, RequestKey, Requests
from imagesearch_services.catalog.storage import Fields, Payload, Point, Storage
from imagesearch_services.catalog.tasks import KeyedLocks, Unbroken
from imagesearch_services.common.concurrency import in_order
from imagesearch_services.common.errors import (
    Reason,
    ServiceError,
    field_error,
    missing_field,
)

READY, CREATING, DELETING = "ready", "creating", "deleting"

LIBRARY_ID = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")
SPACE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,63}@[A-Za-z0-9_.-]{1,63}\Z")
MAX_DIMENSIONS = 65_536
MAX_SPACES = 8

HALF_DONE_S = 600.0
"""Where several Catalogs share an engine: what is half done for longer than this was given up."""

SCROLL_POINTS = 256

CHANGEABLE = frozenset({"display_name", "description", "capacity", "thumbnails_disabled"})


class Libraries:
    """All libraries of one storage."""

    def __init__(
        self,
        storage: Storage,
        requests: Requests,
        unbroken: Unbroken,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._requests = requests
        self._unbroken = unbroken
        self._clock = clock
        self._locks = KeyedLocks()
        self.removed: Callable[[str], None] = lambda _: None
        """Called with the uid of a library that is gone for good."""
        # Only where nobody else writes: then what we wrote is what is there.
        self._known: dict[str, Library] | None = {} if storage.exclusive else None

    async def start(self) -> None:
        """Learn which libraries there are and remove what a crash left half done."""
        await self._storage.create_collection(METADATA, (), METADATA_INDEXES)
        for field, field_type in METADATA_INDEXES.items():
            # One that an earlier version made may lack the later fields.
            await self._storage.create_index(METADATA, field, field_type)
        kept = {METADATA}
        for payload in [payload async for payload in self._scroll(Match("kind", ("library",)))]:
            library = library_from_payload(payload)
            if payload["state"] == READY:
                kept.add(library.uid)
                if self._known is not None:
                    self._known[library.library_id] = library
            elif self._given_up(library):
                await self._remove(library)
            else:
                kept.add(library.uid)
        await self._storage.keep_only(frozenset(kept))

    async def get(self, library_id: str, *, uid: str = "") -> Library:
        """Return a library.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND; LIBRARY_CHANGED where `uid` is not the library's.
        """
        library = await self._find(library_id)
        if library is None:
            raise _not_found(library_id)
        if uid and uid != library.uid:
            raise changed(library_id)
        return library

    async def stats(self, library: Library) -> LibraryStats:
        async with self.steady(library):
            counts = await self._storage.stats(library.uid)
        return LibraryStats(counts.point_count, counts.unindexed_vector_count)

    async def all(self) -> list[Library]:
        """Return every library, in no particular order."""
        if self._known is not None:
            return list(self._known.values())
        ready = AllOf((Match("kind", ("library",)), Match("state", (READY,))))
        return [library_from_payload(payload) async for payload in self._scroll(ready)]

    async def page(
        self, page_size: int, page_token: str
    ) -> tuple[list[tuple[Library, LibraryStats]], str]:
        """Return a page of libraries by id with their counts, and the token of the next page.

        A library that is deleted while its page is read is left out.

        Raises:
            ServiceError: FIELD_INVALID, PAGE_TOKEN_INVALID, STORAGE_UNAVAILABLE.
        """
        if page_size < 0:
            raise field_error("page_size", "must not be negative")
        last = paging.read_token("libraries", page_token)
        after = "" if last is None else last.decode()
        libraries = sorted(
            (library for library in await self.all() if library.library_id > after),
            key=lambda library: library.library_id,
        )
        page = libraries[: paging.page_size(page_size)]
        token = ""
        if len(page) < len(libraries):
            token = paging.make_token("libraries", page[-1].library_id.encode())
        async with aclosing(
            in_order(self._stats_if_present, page, ahead=self._storage.parallel_calls)
        ) as counts:
            stats = [counted async for counted in counts]
        return [
            (library, counted)
            for library, counted in zip(page, stats, strict=True)
            if counted is not None
        ], token

    async def create(self, draft: Library, key: RequestKey) -> Library:
        """Make an empty library; uid and times of the draft are not read.

        Raises:
            ServiceError: LIBRARY_ALREADY_EXISTS, FIELD_REQUIRED, FIELD_INVALID.
        """
        _check_draft(draft)
        return await self._unbroken.run(self._create(draft, key))

    async def update(self, library_id: str, changes: Mapping[str, Any], key: RequestKey) -> Library:
        """Change fields of `CHANGEABLE`.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, FIELD_INVALID.
        """
        for name in changes.keys() - CHANGEABLE:
            raise field_error("update_mask", f"{name} can't be changed")
        if changes.get("capacity", 0) < 0:
            raise field_error("library.capacity", "must not be negative")
        return await self._unbroken.run(self._update(library_id, changes, key))

    async def delete(self, library_id: str, key: RequestKey) -> None:
        """Delete a library and all that is in it."""
        await self._unbroken.run(self._delete(library_id, key))

    async def add_fields(
        self, library: Library, tag_types: Mapping[str, FieldType], attribute_names: frozenset[str]
    ) -> Library:
        """Index tags and attributes that are used for the first time and fix their types.

        Call it under `hold`.
        """
        for name, field_type in tag_types.items():
            await self._storage.create_index(library.uid, f"tags.{name}", field_type)
        for name in attribute_names:
            await self._storage.create_index(library.uid, f"attributes.{name}", FieldType.STRING)
        grown = replace(
            library,
            tag_types={**library.tag_types, **tag_types},
            attribute_names=library.attribute_names | attribute_names,
        )
        await self._write(grown, READY)
        return grown

    @asynccontextmanager
    async def hold(self, library_id: str) -> AsyncIterator[None]:
        """Keep all other writers of the library out: those of this process."""
        async with self._locks.hold(library_id):
            yield

    @asynccontextmanager
    async def steady(self, library: Library) -> AsyncIterator[None]:
        """Where the engine fails since the library went away meanwhile, say that instead."""
        try:
            yield
        except ServiceError as error:
            if error.reason is Reason.STORAGE_UNAVAILABLE:
                now = await self._find(library.library_id)
                if now is None or now.uid != library.uid:
                    raise changed(library.library_id) from error
            raise

    async def _create(self, draft: Library, key: RequestKey) -> Library:
        async with self._requests.attempt(key) as answer, self.hold(draft.library_id):
            if answer is not None:
                return library_from_payload(answer)
            before = await self._read(draft.library_id)
            if before is not None and (
                before["state"] == READY or not self._given_up(library_from_payload(before))
            ):
                raise ServiceError(
                    Reason.LIBRARY_ALREADY_EXISTS,
                    f"there is a library {draft.library_id} already",
                    metadata={"library": f"libraries/{draft.library_id}"},
                )
            if before is not None:
                await self._remove(library_from_payload(before))
            now = round(self._clock(), 6)
            library = replace(draft, uid=uuid.uuid4().hex, create_time=now, update_time=now)
            await self._write(library, CREATING)
            await self._storage.create_collection(library.uid, library.spaces, ENTRY_INDEXES)
            await self._write(library, READY, key)
            return library

    async def _update(
        self, library_id: str, changes: Mapping[str, Any], key: RequestKey
    ) -> Library:
        async with self._requests.attempt(key) as answer, self.hold(library_id):
            if answer is not None:
                return library_from_payload(answer)
            library = await self.get(library_id)
            library = replace(library, **changes, update_time=round(self._clock(), 6))
            await self._write(library, READY, key)
            return library

    async def _delete(self, library_id: str, key: RequestKey) -> None:
        async with self._requests.attempt(key) as answer, self.hold(library_id):
            if answer is not None:
                return
            library = await self.get(library_id)
            library = replace(library, update_time=round(self._clock(), 6))
            await self._write(library, DELETING, key)
            if self._known is not None:
                del self._known[library_id]
            await self._remove(library)

    async def _stats_if_present(self, library: Library) -> LibraryStats | None:
        try:
            return await self.stats(library)
        except ServiceError as error:
            if error.reason is Reason.LIBRARY_CHANGED:
                return None
            raise

    async def _find(self, library_id: str) -> Library | None:
        if self._known is not None:
            return self._known.get(library_id)
        payload = await self._read(library_id)
        if payload is None or payload["state"] != READY:
            return None
        return library_from_payload(payload)

    async def _read(self, library_id: str) -> Payload | None:
        found = await self._storage.retrieve(METADATA, [_uid(library_id)], Fields.ALL)
        return found[0].payload if found else None

    async def _write(self, library: Library, state: str, key: RequestKey | None = None) -> None:
        payload = library_to_payload(library, state)
        points = [Point(_uid(library.library_id), {}, payload)]
        if key is not None:
            points += self._requests.note(key, payload)
        await self._storage.upsert(METADATA, points)
        if state == READY and self._known is not None:
            self._known[library.library_id] = library
        await self._requests.prune()

    def _given_up(self, half_done: Library) -> bool:
        """Tell a library that a crash left half done from one that another Catalog works on."""
        return self._storage.exclusive or self._clock() - half_done.update_time > HALF_DONE_S

    async def _remove(self, library: Library) -> None:
        await self._storage.drop_collection(library.uid)
        await forget_library_pairs(self._storage, library.uid)
        await self._storage.delete(METADATA, [_uid(library.library_id)])
        self.removed(library.uid)

    async def _scroll(self, where: Match | AllOf | Not) -> AsyncIterator[Payload]:
        after = None
        while True:
            found = await self._storage.scroll(METADATA, where, after, SCROLL_POINTS, Fields.ALL)
            for record in found:
                yield record.payload
            if len(found) < SCROLL_POINTS:
                return
            after = found[-1].uid


def changed(library_id: str) -> ServiceError:
    return ServiceError(
        Reason.LIBRARY_CHANGED,
        f"library {library_id} was deleted or made anew meanwhile",
        metadata={"library": f"libraries/{library_id}"},
    )


def _not_found(library_id: str) -> ServiceError:
    return ServiceError(
        Reason.LIBRARY_NOT_FOUND,
        f"there is no library {library_id}",
        metadata={"library": f"libraries/{library_id}"},
    )


def _uid(library_id: str) -> bytes:
    return uuid.uuid5(ENTRY_NAMESPACE, f"library:{library_id}").bytes


def _check_draft(draft: Library) -> None:
    if not draft.library_id:
        raise missing_field("library.library_id")
    if not LIBRARY_ID.match(draft.library_id):
        raise field_error(
            "library.library_id", "must be 1 to 63 of a-z, 0-9 and -, beginning with a letter"
        )
    if draft.capacity < 0:
        raise field_error("library.capacity", "must not be negative")
    if not draft.spaces:
        raise missing_field("library.spaces")
    if len(draft.spaces) > MAX_SPACES:
        raise field_error("library.spaces", f"must be at most {MAX_SPACES}")
    if len({space.name for space in draft.spaces}) < len(draft.spaces):
        raise field_error("library.spaces", "must have different names")
    for number, space in enumerate(draft.spaces):
        _check_space(f"library.spaces[{number}]", space)


def _check_space(field: str, space: VectorSpace) -> None:
    if not SPACE_NAME.match(space.name):
        raise field_error(f"{field}.name", 'must be "NAME@VERSION"')
    if space.sparse and space.dimensions:
        raise field_error(f"{field}.dimensions", "must be 0 for a sparse space")
    if not space.sparse and not 1 <= space.dimensions <= MAX_DIMENSIONS:
        raise field_error(f"{field}.dimensions", f"must be 1 to {MAX_DIMENSIONS}")
