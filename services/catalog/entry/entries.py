"""Entries: reading, changing and deleting them. `puts` stores them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from imagesearch_services.catalog.answered_requests import AnsweredRequests, RequestKey
from imagesearch_services.catalog.entry.checks import check_entry
from imagesearch_services.catalog.entry.reading import read_entry, with_intact_features
from imagesearch_services.catalog.entry.tag_types import tag_types_for
from imagesearch_services.catalog.errors import image_damaged, image_not_found
from imagesearch_services.catalog.failpoints import failpoint
from imagesearch_services.catalog.filter_binding import bind_filter, engine_filter
from imagesearch_services.catalog.filters import NAME, Filter
from imagesearch_services.catalog.integrity import seal
from imagesearch_services.catalog.library.libraries import Libraries
from imagesearch_services.catalog.model import MAX_BATCH, Entry, Library, entry_uid
from imagesearch_services.catalog.paging import PageTokens, effective_page_size
from imagesearch_services.catalog.payloads import (
    entry_from_payload,
    entry_to_payload,
    features_from_payloads,
    updated_payload,
)
from imagesearch_services.catalog.rejected_pairs import forget_entry_pairs
from imagesearch_services.catalog.storage import Fields, Record, Storage
from imagesearch_services.catalog.tasks import ShieldedTasks
from imagesearch_services.catalog.thumbnails.store import (
    ThumbnailRef,
    ThumbnailStore,
    stored_thumbnails,
)
from imagesearch_services.common.errors import field_error

UID_BYTES = 16
MAX_PAGE_BYTES = 1024 * 1024
"""Maximum bytes of the strings of a page, about: many clients accept messages of at most 4 MiB, and
a Gateway holds several copies of a page."""
DELETE_POINTS = 1000
"""Entries read and deleted per step."""
CHANGEABLE = frozenset({"entity_id", "category", "tags", "custom_content"})
"""Fields that `Entries.update` changes; each is a payload key of the same name."""


class Entries:
    """The entries of all libraries."""

    def __init__(
        self,
        storage: Storage,
        libraries: Libraries,
        requests: AnsweredRequests,
        shielded: ShieldedTasks,
        thumbnails: ThumbnailStore,
        *,
        tokens: PageTokens,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._libraries = libraries
        self._requests = requests
        self._shielded = shielded
        self._thumbnails = thumbnails
        self._tokens = tokens
        self._clock = clock

    async def get(
        self,
        library_id: str,
        image_ids: Sequence[str],
        uids: Sequence[bytes],
        *,
        library_uid: str = "",
        vectors: bool,
        features: bool,
    ) -> list[Entry]:
        """Return entries in the given order, image ids first.

        Missing and damaged entries are left out.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, LIBRARY_CHANGED, FIELD_INVALID; IMAGE_DAMAGED for a
                damaged entry whose image id is the only one requested.
        """
        library = await self._libraries.get(library_id, uid=library_uid)
        fields = Fields.ALL if features else Fields.ENTRY
        requested = _requested_uids(image_ids, uids)
        records = await self._read(library, requested, fields, vectors=vectors)
        entries = _entries(library, records, vectors=vectors)
        if len(image_ids) == 1 and not uids and records and not entries:
            raise image_damaged(library_id, image_ids[0])
        return entries

    async def get_features(
        self, library_id: str, image_ids: Sequence[str], uids: Sequence[bytes], *, library_uid: str
    ) -> list[tuple[bytes, bytes]]:
        """Return uid and features of the entries that `get` returns."""
        library = await self._libraries.get(library_id, uid=library_uid)
        found = with_intact_features(
            library, await self._read(library, _requested_uids(image_ids, uids), Fields.FEATURES)
        )
        features = features_from_payloads(record.payload for record in found)
        return list(zip((record.uid for record in found), features, strict=True))

    async def list_page(
        self,
        library_id: str,
        where: Filter | None,
        page_size: int,
        page_token: str,
        *,
        vectors: bool,
    ) -> tuple[list[Entry], str, int]:
        """Return a page by ascending uid, the token of the next page, and the exact count.

        A page ends early if its payload exceeds `MAX_PAGE_BYTES`.
        """
        library = await self._libraries.get(library_id)
        if page_size < 0:
            raise field_error("page_size", "must not be negative")
        scope = f"entries {library.uid} {where!r}"
        last = await self._tokens.read(scope, page_token)
        bound = bind_filter(library, where)
        if bound is False:
            return [], "", 0
        self._libraries.index_filtered_fields(library, bound)
        size = effective_page_size(page_size)
        bound_tree = engine_filter(bound)
        async with self._libraries.detect_change(library):
            total = await self._storage.count(library.uid, bound_tree)
            # The extra entry shows that there is a next page.
            found = await self._storage.scroll(
                library.uid, bound_tree, last, size + 1, Fields.ENTRY, vectors=vectors
            )
        page = _first_bytes(found[:size], MAX_PAGE_BYTES)
        token = await self._tokens.make(scope, page[-1].uid) if len(found) > len(page) else ""
        return _entries(library, page, vectors=vectors), token, total

    async def update(
        self, library_id: str, changes: Entry, paths: Sequence[str], key: RequestKey
    ) -> Entry:
        """Set the fields named by `paths` to the values that `changes` has.

        Raises:
            ServiceError: IMAGE_NOT_FOUND, TAG_TYPE_MISMATCH, TOO_MANY_TAG_NAMES, FIELD_INVALID.
        """
        check_entry("entry", changes)
        for path in paths:
            _check_path(path)
        return await self._shielded.run(self._update(library_id, changes, paths, key))

    async def delete(
        self,
        library_id: str,
        image_ids: Sequence[str],
        where: Filter | None,
        key: RequestKey,
    ) -> int:
        """Delete entries by image ids or by a filter; return the number of deleted entries.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, FIELD_INVALID.
        """
        if len(image_ids) > MAX_BATCH:
            raise field_error(
                "image_ids", f"must have at most {MAX_BATCH} items, not {len(image_ids)}"
            )
        if bool(image_ids) == (where is not None):
            raise field_error("image_ids", "exactly one of image_ids and filter must be set")
        return await self._shielded.run(self._delete(library_id, image_ids, where, key))

    async def _read(
        self,
        library: Library,
        uids: Sequence[bytes],
        fields: Fields,
        *,
        vectors: bool = False,
    ) -> list[Record]:
        """Return records in the given order; missing records are left out."""
        if not uids:
            return []
        async with self._libraries.detect_change(library):
            found = await self._storage.retrieve(
                library.uid, list(dict.fromkeys(uids)), fields, vectors=vectors
            )
        records = {record.uid: record for record in found}
        return [records[uid] for uid in uids if uid in records]

    async def _update(
        self, library_id: str, changes: Entry, paths: Sequence[str], key: RequestKey
    ) -> Entry:
        async with self._requests.attempt(key) as answer:
            if answer is not None:
                return entry_from_payload(answer)
            async with self._libraries.write_lock(library_id):
                library = await self._libraries.get(library_id)
                await self._storage.check_space()
                found = await self._storage.retrieve(library.uid, [changes.uid], Fields.ALL)
                if not found:
                    raise image_not_found(library_id, changes.image_id)
                stored = found[0].payload
                entry = read_entry(library, changes.uid, stored)
                if entry is None:
                    raise image_damaged(library_id, changes.image_id)
                _change(entry, changes, paths)
                entry.update_time = round(self._clock(), 6)
                check_entry("entry", entry)
                types = await tag_types_for([entry], library, self._libraries, self._storage)
                types.add(entry)
                await self._libraries.register_fields(library, types.changes, frozenset())
                keys = {path.partition(".")[0] for path in paths}
                payload = seal(updated_payload(stored, entry, keys))
                await self._storage.set_payload(library.uid, entry.uid, payload)
            entry.features = b""
            await self._requests.remember(key, entry_to_payload(entry, ""))
            return entry

    async def _delete(
        self,
        library_id: str,
        image_ids: Sequence[str],
        where: Filter | None,
        key: RequestKey,
    ) -> int:
        count, orphaned = 0, list[ThumbnailRef]()
        async with self._requests.attempt(key) as answer:
            if answer is not None:
                known: int = answer["deleted_count"]
                return known
            try:
                async with self._libraries.write_lock(library_id):
                    library = await self._libraries.get(library_id)
                    async for page in self._pages_to_delete(library, image_ids, where):
                        orphaned += stored_thumbnails(library.uid, page)
                        uids = [record.uid for record in page]
                        await self._storage.delete(library.uid, uids)
                        failpoint("delete.after_points")
                        await forget_entry_pairs(self._storage, library.uid, uids)
                        count += len(uids)
                await self._requests.remember(key, {"deleted_count": count})
                failpoint("delete.after_answer")
            except BaseException:
                # Some entries may be deleted, and a retry no longer finds their thumbnails.
                self._thumbnails.on_orphans()
                raise
        await self._thumbnails.delete(orphaned)
        return count

    async def _pages_to_delete(
        self, library: Library, image_ids: Sequence[str], where: Filter | None
    ) -> AsyncIterator[Sequence[Record]]:
        """Yield pages of entries to delete; delete each page before requesting the next."""
        if where is None:
            uids = list(dict.fromkeys(map(entry_uid, image_ids)))
            if found := await self._storage.retrieve(library.uid, uids, Fields.THUMBNAIL):
                yield found
            return
        bound = bind_filter(library, where)
        self._libraries.index_filtered_fields(library, bound)
        while bound is not False and (
            found := await self._storage.scroll(
                library.uid, engine_filter(bound), None, DELETE_POINTS, Fields.THUMBNAIL
            )
        ):
            yield found


def _requested_uids(image_ids: Sequence[str], uids: Sequence[bytes]) -> list[bytes]:
    """Return the uids of the image ids, followed by the given uids."""
    if len(image_ids) + len(uids) > MAX_BATCH:
        raise field_error("image_ids", f"together with uids, must have at most {MAX_BATCH} items")
    for number, uid in enumerate(uids):
        if len(uid) != UID_BYTES:
            raise field_error(f"uids[{number}]", f"must have {UID_BYTES} bytes, not {len(uid)}")
    return [*map(entry_uid, image_ids), *uids]


def _first_bytes(records: Sequence[Record], max_bytes: int) -> Sequence[Record]:
    """Return the first records whose payload has about `max_bytes` together, at least one."""
    total = 0
    for row, record in enumerate(records):
        total += _text_bytes(record.payload)
        if total > max_bytes and row:
            return records[:row]
    return records


def _text_bytes(value: object) -> int:
    """Return about how many bytes the strings in a payload have."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_text_bytes, value.values()))
    return sum(map(_text_bytes, value)) if isinstance(value, list) else 0


def _entries(library: Library, records: Sequence[Record], *, vectors: bool) -> list[Entry]:
    """Return the entries of records, without those that are damaged."""
    entries = (
        read_entry(library, record.uid, record.payload, record.vectors if vectors else None)
        for record in records
    )
    return [entry for entry in entries if entry is not None]


def _check_path(path: str) -> None:
    field, dot, name = path.partition(".")
    if path not in CHANGEABLE and not (field == "tags" and dot and NAME.match(name)):
        raise field_error(
            "update_mask",
            f'"{path}" can\'t be changed; valid paths: {", ".join(sorted(CHANGEABLE))}, tags.NAME',
        )


def _change(entry: Entry, changes: Entry, paths: Sequence[str]) -> None:
    for path in paths:
        field, _, name = path.partition(".")
        if not name:
            setattr(entry, field, getattr(changes, field))
        elif name in changes.tags:
            entry.tags = {**entry.tags, name: changes.tags[name]}
        else:
            entry.tags = {tag: value for tag, value in entry.tags.items() if tag != name}
