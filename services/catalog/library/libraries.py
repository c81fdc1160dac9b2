"""Libraries: creating, changing, listing and deleting them, each safe against a kill midway."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from imagesearch_services.catalog.answered_requests import AnsweredRequests, RequestKey
from imagesearch_services.catalog.errors import (
    library_already_exists,
    library_changed,
    library_damaged,
    library_not_found,
    too_many_libraries,
)
from imagesearch_services.catalog.failpoints import failpoint
from imagesearch_services.catalog.filters import Bound
from imagesearch_services.catalog.library.checks import check_new_library
from imagesearch_services.catalog.library.field_indexes import FieldIndexes
from imagesearch_services.catalog.library.records import (
    CREATING,
    DELETING,
    READY,
    LibraryRecords,
)
from imagesearch_services.catalog.library.recovery import Recovery
from imagesearch_services.catalog.model import FieldType, Library, LibraryStats
from imagesearch_services.catalog.paging import PageTokens, effective_page_size
from imagesearch_services.catalog.payloads import (
    ENTRY_INDEXES,
    library_from_payload,
)
from imagesearch_services.catalog.rejected_pairs import forget_library_pairs
from imagesearch_services.catalog.storage import Fields, Storage, damaged_error
from imagesearch_services.catalog.tasks import KeyedLocks, ShieldedTasks
from imagesearch_services.common.concurrency import in_order
from imagesearch_services.common.errors import Reason, ServiceError, field_error

ABANDONED_AFTER_S = 600.0
"""Age from which an unfinished creation or deletion counts as abandoned, in seconds.

Only where several Catalogs share an engine; a single Catalog knows that its own are.
"""

FREE_TAG_NAMES_INTERVAL_S = 60.0
"""Minimum time between two searches for unused tag names in a library, in seconds. A search reads
the tags of every entry."""

FREE_TAG_NAMES_POINTS = 1000
"""Entries read per step."""

CHANGEABLE = frozenset({"display_name", "description", "capacity", "thumbnails_disabled"})
"""Fields that `Libraries.update` changes."""


class Libraries:
    """All libraries of one storage."""

    def __init__(
        self,
        storage: Storage,
        requests: AnsweredRequests,
        shielded: ShieldedTasks,
        *,
        tokens: PageTokens,
        max_libraries: int = 10_000,
        max_tag_names: int = 1000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._tokens = tokens
        self._max_libraries = max_libraries
        self.max_tag_names = max_tag_names
        """Maximum number of distinct tag names in a library."""
        self._requests = requests
        self._shielded = shielded
        self._clock = clock
        self._records = LibraryRecords(storage, requests, clock=clock)
        self._locks = KeyedLocks()
        self._indexes = FieldIndexes(storage, self._records, self.write_lock)
        self._tag_names_freed_at: dict[str, float] = {}
        self.on_removed: Callable[[str], None] = lambda _: None
        """Called with the uid of a library after its removal."""

    async def start(self) -> None:
        """Load the libraries, restore what can be, remove what a crash left unfinished.

        The metadata collection is open (`records.open_metadata`).
        """
        self._storage.damaged_error = self._damaged_error
        recovery = Recovery(self._storage, self._records, self._remove, self._is_abandoned)
        await recovery.run()

    async def get(self, library_id: str, *, uid: str = "") -> Library:
        """Return a library.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND; LIBRARY_CHANGED if `uid` is given and differs.
        """
        library = await self._records.find(library_id)
        if library is None:
            raise library_not_found(library_id)
        if uid and uid != library.uid:
            raise library_changed(library_id)
        return library

    async def stats(self, library: Library) -> LibraryStats:
        async with self.detect_change(library):
            counts = await self._storage.stats(library.uid)
        return LibraryStats(counts.point_count, counts.unindexed_vector_count)

    async def all(self) -> list[Library]:
        """Return every library, in any order."""
        return await self._records.all()

    async def deleted(self) -> dict[str, float]:
        """Return the times of the deletions on record, by the uid of the library."""
        return await self._records.deleted()

    async def forget_deleted(self, library_uids: Sequence[str]) -> None:
        """Remove the records of deletions of which nothing is left."""
        await self._records.forget_deleted(library_uids)

    async def list_page(
        self, page_size: int, page_token: str
    ) -> tuple[list[tuple[Library, LibraryStats]], str]:
        """Return a page of libraries by id with their counts, and the token of the next page.

        A library that is deleted while its page is read is left out. A damaged one has counts of 0.

        Raises:
            ServiceError: FIELD_INVALID, PAGE_TOKEN_INVALID, STORAGE_UNAVAILABLE.
        """
        if page_size < 0:
            raise field_error("page_size", "must not be negative")
        last = await self._tokens.read("libraries", page_token)
        after = "" if last is None else last.decode()
        libraries = sorted(
            (library for library in await self.all() if library.library_id > after),
            key=lambda library: library.library_id,
        )
        page = libraries[: effective_page_size(page_size)]
        token = ""
        if len(page) < len(libraries):
            token = await self._tokens.make("libraries", page[-1].library_id.encode())
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
        """Create an empty library; the uid and times of the draft are ignored.

        Raises:
            ServiceError: LIBRARY_ALREADY_EXISTS, TOO_MANY_LIBRARIES, FIELD_REQUIRED,
                FIELD_INVALID.
        """
        check_new_library(draft)
        return await self._shielded.run(self._create(draft, key))

    async def update(self, library_id: str, changes: Mapping[str, Any], key: RequestKey) -> Library:
        """Change fields of `CHANGEABLE`.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, FIELD_INVALID.
        """
        for name in changes.keys() - CHANGEABLE:
            raise field_error(
                "update_mask",
                f'"{name}" can\'t be changed; valid paths: {", ".join(sorted(CHANGEABLE))}',
            )
        if changes.get("capacity", 0) < 0:
            raise field_error("library.capacity", "must not be negative")
        return await self._shielded.run(self._update(library_id, changes, key))

    async def delete(self, library_id: str, key: RequestKey) -> None:
        """Delete a library with its entries and rejected pairs."""
        await self._shielded.run(self._delete(library_id, key))

    async def register_fields(
        self, library: Library, tag_types: Mapping[str, FieldType], attribute_names: frozenset[str]
    ) -> Library:
        """Store the types of new and changed tags, and the names of new attributes.

        Call it under `write_lock`, before the entries are written.
        """
        if not tag_types and not attribute_names:
            return library
        stale = library.indexed_fields & {f"tags.{name}" for name in tag_types}
        for field in stale:
            # Before the metadata: an index of the former type would hide values of the new one.
            await self._storage.drop_index(library.uid, field)
        extended = replace(
            library,
            tag_types={**library.tag_types, **tag_types},
            attribute_names=library.attribute_names | attribute_names,
            indexed_fields=library.indexed_fields - stale,
        )
        failpoint("fields.before_record")
        await self._records.write(extended, READY)
        failpoint("fields.after_record")
        return extended

    def index_filtered_fields(self, library: Library, bound: Bound) -> None:
        """Create missing indexes of the fields that a filter names, in the background."""
        self._indexes.request(library, bound)

    async def free_tag_names(self, library: Library) -> Library:
        """Forget the tags that no entry has, at most once per `FREE_TAG_NAMES_INTERVAL_S`.

        Call it under `write_lock`.
        """
        now = self._clock()
        freed_at = self._tag_names_freed_at.get(library.uid, 0.0)
        if 0 <= now - freed_at < FREE_TAG_NAMES_INTERVAL_S:
            return library
        self._tag_names_freed_at[library.uid] = now
        used: set[str] = set()
        after = None
        while found := await self._storage.scroll(
            library.uid, None, after, FREE_TAG_NAMES_POINTS, Fields.TAGS
        ):
            used.update(*(record.payload.get("tags", {}) for record in found))
            after = found[-1].uid
        unused = library.tag_types.keys() - used
        stale = library.indexed_fields & {f"tags.{name}" for name in unused}
        for field in stale:
            await self._storage.drop_index(library.uid, field)
        kept = {name: kind for name, kind in library.tag_types.items() if name in used}
        freed = replace(library, tag_types=kept, indexed_fields=library.indexed_fields - stale)
        await self._records.write(freed, READY)
        return freed

    async def close(self) -> None:
        """Stop background work."""
        await self._indexes.close()

    @asynccontextmanager
    async def write_lock(self, library_id: str) -> AsyncIterator[None]:
        """Exclude all other writers of the library in this process."""
        async with self._locks.hold(library_id):
            yield

    @asynccontextmanager
    async def detect_change(self, library: Library) -> AsyncIterator[None]:
        """Raise LIBRARY_CHANGED for an engine's error if the library was deleted meanwhile."""
        try:
            yield
        except ServiceError as error:
            if error.reason in {Reason.STORAGE_UNAVAILABLE, Reason.LIBRARY_DAMAGED}:
                current = await self._records.find(library.library_id)
                if current is None or current.uid != library.uid:
                    raise library_changed(library.library_id) from error
            raise

    async def _create(self, draft: Library, key: RequestKey) -> Library:
        async with self._requests.attempt(key) as answer, self.write_lock(draft.library_id):
            if answer is not None:
                return library_from_payload(answer)
            if (existing := await self._records.read(draft.library_id)) is not None:
                unfinished, state = existing
                if state == READY or not self._is_abandoned(unfinished):
                    raise library_already_exists(draft.library_id)
                await self._remove(unfinished)
            if len(await self.all()) >= self._max_libraries:
                raise too_many_libraries(self._max_libraries)
            await self._storage.check_space()
            now = self._now()
            library = replace(draft, uid=uuid.uuid4().hex, create_time=now, update_time=now)
            await self._records.write(library, CREATING)
            failpoint("library.after_creating")
            await self._storage.create_collection(library.uid, library.spaces, ENTRY_INDEXES)
            failpoint("library.after_collection")
            await self._records.write(library, READY, key)
            return library

    async def _update(
        self, library_id: str, changes: Mapping[str, Any], key: RequestKey
    ) -> Library:
        async with self._requests.attempt(key) as answer, self.write_lock(library_id):
            if answer is not None:
                return library_from_payload(answer)
            library = await self.get(library_id)
            await self._storage.check_space()
            library = replace(library, **changes, update_time=self._now())
            await self._records.write(library, READY, key)
            return library

    async def _delete(self, library_id: str, key: RequestKey) -> None:
        async with self._requests.attempt(key) as answer, self.write_lock(library_id):
            if answer is not None:
                return
            library = replace(await self.get(library_id), update_time=self._now())
            await self._records.write(library, DELETING, key)
            failpoint("library.after_deleting")
            await self._remove(library)

    async def _stats_if_present(self, library: Library) -> LibraryStats | None:
        try:
            return await self.stats(library)
        except ServiceError as error:
            if error.reason is Reason.LIBRARY_CHANGED:
                return None
            if error.reason is Reason.LIBRARY_DAMAGED:
                # Other libraries are listed and served.
                return LibraryStats(0, 0, damaged=True)
            raise

    def _now(self) -> float:
        return round(self._clock(), 6)

    def _is_abandoned(self, unfinished: Library) -> bool:
        """Return whether a crash, not another Catalog at work, left the library unfinished."""
        return self._storage.exclusive or self._clock() - unfinished.update_time > ABANDONED_AFTER_S

    def _damaged_error(self, uid: str) -> ServiceError:
        """Return the error of a call on a damaged collection."""
        library_id = self._records.library_id(uid)
        return damaged_error(uid) if library_id is None else library_damaged(library_id)

    async def _remove(self, library: Library) -> None:
        await self._storage.drop_collection(library.uid)
        failpoint("library.after_drop")
        await forget_library_pairs(self._storage, library.uid)
        failpoint("library.after_pairs")
        await self._records.delete(library)
        failpoint("library.after_delete")
        self.on_removed(library.uid)
