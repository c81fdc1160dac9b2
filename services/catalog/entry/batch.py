"""Decides the outcome of each item of a PutEntries call, in order, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from imagesearch_services.catalog.entry.reading import find_damage
from imagesearch_services.catalog.entry.tag_types import TagTypes
from imagesearch_services.catalog.errors import image_already_exists, image_damaged, library_full
from imagesearch_services.catalog.integrity import seal, vector_check
from imagesearch_services.catalog.model import Entry, Library
from imagesearch_services.catalog.payloads import (
    REQUEST_ID_KEY,
    entry_from_payload,
    entry_to_payload,
)
from imagesearch_services.catalog.storage import THUMBNAIL_KEY, Payload, Point, Record
from imagesearch_services.catalog.thumbnails.store import ThumbnailRef, stored_thumbnails
from imagesearch_services.common.errors import ServiceError


@dataclass(frozen=True, slots=True)
class PutItem:
    """An entry to store, with its options."""

    entry: Entry
    allow_overwrite: bool = False
    request_id: str = ""
    thumbnail: ThumbnailRef | None = None
    """Name under which the entry's thumbnail is to be stored."""


class Batch:
    """The items of one call; each item sees the outcome of those before it."""

    def __init__(
        self,
        library: Library,
        tag_types: TagTypes,
        now: float,
        stored_thumbnails: AbstractSet[ThumbnailRef],
    ) -> None:
        """Start an empty batch.

        Args:
            library: as it is under its write lock.
            tag_types: the types of its tags.
            now: update time of the entries, seconds since 1970 UTC.
            stored_thumbnails: thumbnails whose blobs exist, for entries to refer to.
        """
        self._library = library
        self.tag_types = tag_types
        self._now = now
        self._stored_thumbnails = stored_thumbnails
        self._existing: Sequence[Record] = ()
        self._payloads: dict[bytes, Payload] = {}
        self.room: int | None = None
        """Number of entries that the library may still take; None: no limit."""
        self.points: dict[bytes, Point] = {}
        """Points to write, by uid."""
        self.new_attributes: set[str] = set()

    def set_existing(self, records: Sequence[Record]) -> None:
        """Set the records that are stored under the ids of the items."""
        self._existing = records
        self._payloads.update((record.uid, record.payload) for record in records)

    def orphaned_thumbnails(self) -> list[ThumbnailRef]:
        """Return the thumbnails that no point refers to once the points are written."""
        replaced = [record for record in self._existing if record.uid in self.points]
        versions = {point.payload.get(THUMBNAIL_KEY) for point in self.points.values()}
        unused = [ref for ref in self._stored_thumbnails if ref.version not in versions]
        return [*stored_thumbnails(self._library.uid, replaced), *unused]

    def accepts(self, item: PutItem) -> bool:
        """Add an item; return whether it is written, rather than refused or stored already."""
        before = self.points.get(item.entry.uid)
        self.add(item)
        return self.points.get(item.entry.uid) is not before

    def add(self, item: PutItem) -> Entry | ServiceError:
        """Add an item; return the entry as it will be stored, or the reason for refusing it."""
        uid = item.entry.uid
        existing = self._payloads.get(uid)
        create_time = self._now
        if existing is not None and find_damage(self._library, uid, existing):
            if not item.allow_overwrite:
                return image_damaged(self._library.library_id, item.entry.image_id)
        elif existing is not None:
            if item.request_id and existing.get(REQUEST_ID_KEY) == item.request_id:
                return entry_from_payload(existing)
            if not item.allow_overwrite:
                return image_already_exists(self._library.library_id, item.entry.image_id)
            create_time = existing["create_time"]
        elif self.room is not None and self.room <= 0:
            return library_full(self._library)
        try:
            self.tag_types.add(item.entry)
        except ServiceError as error:
            return error
        self.new_attributes |= item.entry.attributes().keys() - self._library.attribute_names
        if existing is None and self.room is not None:
            self.room -= 1
        return self._add_point(item, create_time)

    def _add_point(self, item: PutItem, create_time: float) -> Entry:
        thumbnail = item.thumbnail if item.thumbnail in self._stored_thumbnails else None
        stored = replace(
            item.entry,
            create_time=create_time,
            update_time=self._now,
            vectors={},
            thumbnail=b"",
            thumbnail_version="" if thumbnail is None else thumbnail.version,
        )
        checks = {
            space.name: vector_check(space, item.entry.vectors[space.name])
            for space in self._library.spaces
            if space.name in item.entry.vectors
        }
        payload = seal(entry_to_payload(stored, item.request_id, checks))
        self._payloads[stored.uid] = payload
        self.points[stored.uid] = Point(stored.uid, item.entry.vectors, payload)
        stored.features = b""
        return stored
