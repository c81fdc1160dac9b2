"""Putting several entries: what becomes of each, decided in order, before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from imagesearch_services.catalog.model import Entry, FieldType, Library
from imagesearch_services.catalog.payloads import (
    REQUEST_ID_KEY,
    entry_from_payload,
    entry_to_payload,
)
from imagesearch_services.catalog.storage import THUMBNAIL_KEY, Payload, Point, Record
from imagesearch_services.catalog.thumbnails import Thumbnail
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import TagValue


@dataclass(frozen=True, slots=True)
class PutItem:
    """An entry to store, and on which terms."""

    entry: Entry
    allow_overwrite: bool = False
    request_id: str = ""
    thumbnail: Thumbnail | None = None
    """Under which name the entry's small picture is to be kept."""


class Batch:
    """Decides over the items of one call, in order, each knowing those before it."""

    def __init__(self, library: Library, now: float, kept: AbstractSet[Thumbnail]) -> None:
        """Begin; `kept` are the small pictures that are there for entries to name."""
        self._library = library
        self._now = now
        self._kept = kept
        self._met: Sequence[Record] = ()
        self._there: dict[bytes, Payload] = {}
        self.room: int | None = None
        """How many more the library may take; None: any number."""
        self.points: dict[bytes, Point] = {}
        self.new_tags: dict[str, FieldType] = {}
        self.new_attributes: set[str] = set()

    def meet(self, found: Sequence[Record]) -> None:
        """Take in what is stored under the items' ids."""
        self._met = found
        self._there.update((record.uid, record.payload) for record in found)

    def unnamed_thumbnails(self) -> list[Thumbnail]:
        """Return the small pictures that no point names once the points are written."""
        replaced = [record for record in self._met if record.uid in self.points]
        named = {point.payload.get(THUMBNAIL_KEY) for point in self.points.values()}
        outdone = [each for each in self._kept if each.version not in named]
        return [*named_thumbnails(self._library, replaced), *outdone]

    def add(self, item: PutItem) -> Entry | ServiceError:
        """Take the item in; return the entry as it will be stored, or why it can't be."""
        uid = item.entry.uid
        before = self._there.get(uid)
        if before is not None:
            if item.request_id and before.get(REQUEST_ID_KEY) == item.request_id:
                return entry_from_payload(before)
            if not item.allow_overwrite:
                return _image_exists(self._library.library_id, item.entry.image_id)
        elif self.room is not None and self.room <= 0:
            return _full(self._library)
        try:
            new_tags = new_tag_types({**self._library.tag_types, **self.new_tags}, item.entry.tags)
        except ServiceError as error:
            return error
        self.new_tags.update(new_tags)
        self.new_attributes |= item.entry.attributes().keys() - self._library.attribute_names
        if before is None and self.room is not None:
            self.room -= 1
        thumbnail = item.thumbnail if item.thumbnail in self._kept else None
        stored = replace(
            item.entry,
            create_time=self._now if before is None else before["create_time"],
            update_time=self._now,
            vectors={},
            thumbnail=b"",
            thumbnail_version="" if thumbnail is None else thumbnail.version,
        )
        payload = entry_to_payload(stored, item.request_id)
        self._there[uid] = payload
        self.points[uid] = Point(uid, item.entry.vectors, payload)
        stored.features = b""
        return stored


def new_tag_types(
    known: Mapping[str, FieldType], tags: Mapping[str, TagValue]
) -> dict[str, FieldType]:
    """Return the types of the tags that are used for the first time.

    Raises:
        ServiceError: TAG_TYPE_MISMATCH where a tag has had another type.
    """
    new: dict[str, FieldType] = {}
    for name, value in tags.items():
        actual = FieldType.of(value)
        expected = known.get(name)
        if expected is None:
            new[name] = actual
        elif expected is not actual:
            raise ServiceError(
                Reason.TAG_TYPE_MISMATCH,
                f"the tag {name} holds {expected.value} values in this library, not {actual.value}",
                metadata={"tag": name, "expected": expected.value, "actual": actual.value},
            )
    return new


def named_thumbnails(library: Library, records: Iterable[Record]) -> list[Thumbnail]:
    """Return the small pictures that records name."""
    return [
        Thumbnail(library.uid, record.uid, record.payload[THUMBNAIL_KEY])
        for record in records
        if THUMBNAIL_KEY in record.payload
    ]


def _image_exists(library_id: str, image_id: str) -> ServiceError:
    return ServiceError(
        Reason.IMAGE_ALREADY_EXISTS,
        f"there is an image {image_id} already",
        metadata={"image": f"libraries/{library_id}/images/{image_id}"},
    )


def _full(library: Library) -> ServiceError:
    return ServiceError(
        Reason.LIBRARY_FULL,
        f"the library holds {library.capacity} images, as many as it may",
        metadata={
            "library": f"libraries/{library.library_id}",
            "capacity": str(library.capacity),
        },
    )
