"""Entries: storing, reading, changing and deleting them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from imagesearch_services.catalog import checks, paging
from imagesearch_services.catalog.batch import Batch, PutItem, named_thumbnails, new_tag_types
from imagesearch_services.catalog.bounds import bound_filter, for_engine
from imagesearch_services.catalog.filters import NAME, Filter
from imagesearch_services.catalog.libraries import Libraries
from imagesearch_services.catalog.model import Entry, Library, entry_uid
from imagesearch_services.catalog.payloads import (
    entry_from_payload,
    entry_to_payload,
    features_from_payloads,
    updated_payload,
)
from imagesearch_services.catalog.rejections import forget_entry_pairs
from imagesearch_services.catalog.requests import RequestKey, Requests
from imagesearch_services.catalog.storage import Fields, Record, Storage
from imagesearch_services.catalog.tasks import Unbroken
from imagesearch_services.catalog.thumbnails import NOT_KEPT, Thumbnail, Thumbnails
from imagesearch_services.common.errors import ServiceError, field_error

MAX_BATCH = 1000
UID_BYTES = 16
DELETE_POINTS = 1000


class Entries:
    """The entries of all libraries."""

    def __init__(
        self,
        storage: Storage,
        libraries: Libraries,
        requests: Requests,
        unbroken: Unbroken,
        thumbnails: Thumbnails,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._libraries = libraries
        self._requests = requests
        self._unbroken = unbroken
        self._thumbnails = thumbnails
        self._clock = clock

    async def put(
        self, library_id: str, library_uid: str, items: Sequence[PutItem | ServiceError]
    ) -> list[Entry | ServiceError]:
        """Store entries; each succeeds or fails alone, in the order given.

        An item that could not even be read comes as its error and is answered with it.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, LIBRARY_CHANGED; FIELD_INVALID for too many items.
        """
        library = await self._libraries.get(library_id, uid=library_uid)
        if not 1 <= len(items) <= MAX_BATCH:
            raise field_error("entries", f"must be 1 to {MAX_BATCH}")
        return await self._unbroken.run(self._put(library, _checked(library, items)))

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
        """Return entries in the order asked, ids first; those that are gone are left out."""
        library = await self._libraries.get(library_id, uid=library_uid)
        fields = Fields.ALL if features else Fields.ENTRY
        wanted = _wanted(image_ids, uids)
        return [_entry(one) for one in await self._read(library, wanted, fields, vectors=vectors)]

    async def get_features(
        self, library_id: str, image_ids: Sequence[str], uids: Sequence[bytes], *, library_uid: str
    ) -> list[tuple[bytes, bytes]]:
        """Return uids and features as `get` returns entries."""
        library = await self._libraries.get(library_id, uid=library_uid)
        found = await self._read(library, _wanted(image_ids, uids), Fields.FEATURES)
        features = features_from_payloads(one.payload for one in found)
        return list(zip((one.uid for one in found), features, strict=True))

    async def page(
        self,
        library_id: str,
        where: Filter | None,
        page_size: int,
        page_token: str,
        *,
        vectors: bool,
    ) -> tuple[list[Entry], str, int]:
        """Return a page by ascending uid, the token of the next one, and the exact count."""
        library = await self._libraries.get(library_id)
        if page_size < 0:
            raise field_error("page_size", "must not be negative")
        scope = f"entries {library.uid} {where!r}"
        last = paging.read_token(scope, page_token)
        bound = bound_filter(library, where)
        if bound is False:
            return [], "", 0
        size = paging.page_size(page_size)
        engine_filter = for_engine(bound)
        async with self._libraries.steady(library):
            total = await self._storage.count(library.uid, engine_filter)
            # One more than asked tells whether there is a next page.
            found = await self._storage.scroll(
                library.uid, engine_filter, last, size + 1, Fields.ENTRY, vectors=vectors
            )
        page = found[:size]
        token = paging.make_token(scope, page[-1].uid) if len(found) > size else ""
        return [_entry(record) for record in page], token, total

    async def update(
        self, library_id: str, changes: Entry, paths: Sequence[str], key: RequestKey
    ) -> Entry:
        """Change the fields named by `paths` to what `changes` has.

        Raises:
            ServiceError: IMAGE_NOT_FOUND, TAG_TYPE_MISMATCH, FIELD_INVALID.
        """
        checks.check_fields("entry", changes)
        for path in paths:
            _check_path(path)
        return await self._unbroken.run(self._update(library_id, changes, paths, key))

    async def delete(
        self,
        library_id: str,
        image_ids: Sequence[str],
        where: Filter | None,
        key: RequestKey,
    ) -> int:
        """Delete by ids, or else by filter; return how many were there and are not now."""
        if len(image_ids) > MAX_BATCH:
            raise field_error("image_ids", f"must be at most {MAX_BATCH}")
        if bool(image_ids) == (where is not None):
            raise field_error("image_ids", "exactly one of image_ids and filter must be set")
        return await self._unbroken.run(self._delete(library_id, image_ids, where, key))

    async def _read(
        self,
        library: Library,
        wanted: Sequence[bytes],
        fields: Fields,
        *,
        vectors: bool = False,
    ) -> list[Record]:
        """Read points in the order asked; those that are gone are left out."""
        if not wanted:
            return []
        async with self._libraries.steady(library):
            found = await self._storage.retrieve(
                library.uid, list(dict.fromkeys(wanted)), fields, vectors=vectors
            )
        there = {record.uid: record for record in found}
        return [there[uid] for uid in wanted if uid in there]

    async def _put(
        self, library: Library, items: Sequence[PutItem | ServiceError]
    ) -> list[Entry | ServiceError]:
        items = await self._with_names(library, items)
        files = {
            item.thumbnail: item.entry.thumbnail
            for item in items
            if isinstance(item, PutItem) and item.thumbnail is not None
        }
        async with self._thumbnails.keeping(files) as kept:
            results, unnamed = await self._write(library, items, kept)
        await self._thumbnails.drop(unnamed)
        for item, result in zip(items, results, strict=True):
            if isinstance(item, PutItem) and isinstance(result, Entry):
                result.warnings = self._warnings(library, item.entry, result)
        return results

    async def _with_names(
        self, library: Library, items: Sequence[PutItem | ServiceError]
    ) -> Sequence[PutItem | ServiceError]:
        """Name the small pictures to keep: all but those of entries that are there already.

        What becomes of an item is decided later; one that is refused then had its small picture
        written in vain.
        """
        if not self._thumbnails.can_keep or library.thumbnails_disabled:
            return items
        uids = {
            item.entry.uid
            for item in items
            if isinstance(item, PutItem) and item.entry.thumbnail and not item.allow_overwrite
        }
        there: set[bytes] = set()
        if uids:
            async with self._libraries.steady(library):
                found = await self._storage.retrieve(library.uid, list(uids), Fields.NONE)
            there = {record.uid for record in found}
        return [
            replace(item, thumbnail=Thumbnail.new(library.uid, item.entry.uid))
            if isinstance(item, PutItem)
            and item.entry.thumbnail
            and (item.allow_overwrite or item.entry.uid not in there)
            else item
            for item in items
        ]

    async def _write(
        self,
        library: Library,
        items: Sequence[PutItem | ServiceError],
        kept: AbstractSet[Thumbnail],
    ) -> tuple[list[Entry | ServiceError], list[Thumbnail]]:
        """Write the points of what can be stored; return the small pictures that none names."""
        async with self._libraries.hold(library.library_id):
            library = await self._libraries.get(library.library_id, uid=library.uid)
            batch = Batch(library, round(self._clock(), 6), kept)
            uids = [item.entry.uid for item in items if isinstance(item, PutItem)]
            if uids:
                there = await self._storage.retrieve(
                    library.uid, list(dict.fromkeys(uids)), Fields.ENTRY
                )
                batch.meet(there)
                if library.capacity:
                    stats = await self._storage.stats(library.uid)
                    batch.room = library.capacity - stats.point_count
            results = [batch.add(item) if isinstance(item, PutItem) else item for item in items]
            if batch.new_tags or batch.new_attributes:
                await self._libraries.add_fields(
                    library, batch.new_tags, frozenset(batch.new_attributes)
                )
            if batch.points:
                await self._storage.upsert(library.uid, list(batch.points.values()))
        return results, batch.unnamed_thumbnails()

    def _warnings(self, library: Library, asked: Entry, stored: Entry) -> tuple[str, ...]:
        wanted = asked.thumbnail and not library.thumbnails_disabled and self._thumbnails.can_keep
        return (NOT_KEPT,) if wanted and not stored.thumbnail_version else ()

    async def _update(
        self, library_id: str, changes: Entry, paths: Sequence[str], key: RequestKey
    ) -> Entry:
        async with self._requests.attempt(key) as answer:
            if answer is not None:
                return entry_from_payload(answer)
            async with self._libraries.hold(library_id):
                library = await self._libraries.get(library_id)
                found = await self._storage.retrieve(library.uid, [changes.uid], Fields.ALL)
                if not found:
                    raise checks.image_not_found(library_id, changes.image_id)
                before = found[0].payload
                entry = entry_from_payload(before)
                _change(entry, changes, paths)
                entry.update_time = round(self._clock(), 6)
                checks.check_fields("entry", entry)
                new_tags = new_tag_types(library.tag_types, entry.tags)
                if new_tags:
                    await self._libraries.add_fields(library, new_tags, frozenset())
                keys = {path.partition(".")[0] for path in paths}
                payload = updated_payload(before, entry, keys)
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
        count, unnamed = 0, list[Thumbnail]()
        async with self._requests.attempt(key) as answer:
            if answer is not None:
                known: int = answer["deleted_count"]
                return known
            try:
                async with self._libraries.hold(library_id):
                    library = await self._libraries.get(library_id)
                    async for page in self._to_delete(library, image_ids, where):
                        unnamed += named_thumbnails(library, page)
                        uids = [record.uid for record in page]
                        await self._storage.delete(library.uid, uids)
                        await forget_entry_pairs(self._storage, library.uid, uids)
                        count += len(uids)
                await self._requests.remember(key, {"deleted_count": count})
            except BaseException:
                # Entries may be gone all the same, and then no second try finds their small
                # pictures.
                self._thumbnails.left_over()
                raise
        await self._thumbnails.drop(unnamed)
        return count

    async def _to_delete(
        self, library: Library, image_ids: Sequence[str], where: Filter | None
    ) -> AsyncIterator[Sequence[Record]]:
        """Give pages of entries to delete; each page must be gone before the next is asked for."""
        if where is None:
            uids = list(dict.fromkeys(map(entry_uid, image_ids)))
            if found := await self._storage.retrieve(library.uid, uids, Fields.THUMBNAIL):
                yield found
            return
        bound = bound_filter(library, where)
        while bound is not False and (
            found := await self._storage.scroll(
                library.uid, for_engine(bound), None, DELETE_POINTS, Fields.THUMBNAIL
            )
        ):
            yield found


def _checked(
    library: Library, items: Sequence[PutItem | ServiceError]
) -> list[PutItem | ServiceError]:
    """Return the items with an error in the place of each that can't be stored."""
    checked = list(items)
    sound: list[tuple[int, PutItem]] = []
    for number, item in enumerate(items):
        if isinstance(item, ServiceError):
            continue
        try:
            checks.check_fields(f"entries[{number}]", item.entry)
            checks.check_request_id(f"request_ids[{number}]", item.request_id)
        except ServiceError as error:
            checked[number] = error
        else:
            sound.append((number, item))
    faults = checks.check_entry_vectors(
        library,
        [f"entries[{number}]" for number, _ in sound],
        [item.entry for _, item in sound],
    )
    for (number, _), fault in zip(sound, faults, strict=True):
        if fault is not None:
            checked[number] = fault
    return checked


def _wanted(image_ids: Sequence[str], uids: Sequence[bytes]) -> list[bytes]:
    """Give the uids of what is asked for, ids first."""
    if len(image_ids) + len(uids) > MAX_BATCH:
        raise field_error("image_ids", f"with uids, must be at most {MAX_BATCH}")
    for number, uid in enumerate(uids):
        if len(uid) != UID_BYTES:
            raise field_error(f"uids[{number}]", f"must have {UID_BYTES} bytes")
    return [*map(entry_uid, image_ids), *uids]


def _entry(record: Record) -> Entry:
    return entry_from_payload(record.payload, record.vectors)


def _check_path(path: str) -> None:
    group, dot, name = path.partition(".")
    if group == "tags" and (not dot or NAME.match(name)):
        return
    if path not in {"entity_id", "category", "custom_content"}:
        raise field_error("update_mask", f"{path} can't be changed")


def _change(entry: Entry, changes: Entry, paths: Sequence[str]) -> None:
    for path in paths:
        group, _, name = path.partition(".")
        if not name:
            setattr(entry, group, getattr(changes, group))
        elif name in changes.tags:
            entry.tags = {**entry.tags, name: changes.tags[name]}
        else:
            entry.tags = {tag: value for tag, value in entry.tags.items() if tag != name}
