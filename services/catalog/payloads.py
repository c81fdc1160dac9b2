"""Stored format of entries and libraries: domain objects ↔ JSON-like payloads of points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from imagesearch_services.catalog import base94
from imagesearch_services.catalog.filters import BASE_FIELDS
from imagesearch_services.catalog.integrity import VECTORS_KEY
from imagesearch_services.catalog.model import (
    Entry,
    FieldType,
    Library,
    VectorData,
    VectorSpace,
)
from imagesearch_services.catalog.storage import FEATURES_KEY, THUMBNAIL_KEY, Payload
from imagesearch_services.common.types import (
    Attribute,
    Box,
    Category,
    Color,
    LibraryType,
    ModelVersion,
    PictureInfo,
    Subject,
)

REQUEST_ID_KEY = "put_request_id"
BACKGROUNDS_KEY = "background_similarities"

METADATA = "_meta"
"""Name of the collection of libraries, answered requests, rejected pairs and installation ids."""

METADATA_INDEXES = {
    "kind": FieldType.STRING,
    "state": FieldType.STRING,
    "remembered_at": FieldType.FLOAT,
    "library_uid": FieldType.STRING,
    "members": FieldType.STRING,
}
"""Indexed fields of the metadata collection."""

NO_BOX = Box(0.0, 0.0, 0.0, 0.0)
"""Box of a stored subject without a box, equal to an unset message."""

ENTRY_INDEXES = dict(BASE_FIELDS)
"""Indexed fields of a new library; tags and attributes are added when a filter names them."""


def entry_to_payload(
    entry: Entry, request_id: str, vector_checks: Mapping[str, str] | None = None
) -> Payload:
    """Return the payload of an entry; unset fields are left out, for `:*` filters.

    Args:
        entry: what to store.
        request_id: identifies the request that stores it; empty: none.
        vector_checks: checks of its vectors, by space.
    """
    optional: Payload = {
        "entity_id": entry.entity_id,
        "category": _category_number(entry.category),
        "tags": dict(entry.tags),
        "custom_content": entry.custom_content,
        "attributes": entry.attributes(),
        BACKGROUNDS_KEY: list(entry.background_similarities.items()),
        FEATURES_KEY: base94.encode(entry.features) if entry.features else "",
        THUMBNAIL_KEY: entry.thumbnail_version,
        REQUEST_ID_KEY: request_id,
        VECTORS_KEY: dict(vector_checks or {}),
    }
    payload: Payload = {
        "image_id": entry.image_id,
        "create_time": entry.create_time,
        "update_time": entry.update_time,
        **{key: value for key, value in optional.items() if value},
    }
    if entry.region is not None:
        payload["region"] = list(entry.region)
    if entry.subject is not None:
        payload["subject"] = _subject_to_payload(entry.subject)
    if entry.info is not None:
        payload |= _info_to_payload(entry.info)
    return payload


def entry_from_payload(payload: Payload, vectors: dict[str, VectorData] | None = None) -> Entry:
    """Return the entry of a payload, with features if the payload was read with them."""
    get = payload.get
    region, subject = get("region"), get("subject")
    return Entry(
        image_id=payload["image_id"],
        entity_id=get("entity_id", ""),
        category=_category(get("category", 0)),
        tags=get("tags", {}),
        custom_content=get("custom_content", ""),
        region=None if region is None else Box(*region),
        subject=None if subject is None else _subject_from_payload(subject),
        info=_info_from_payload(payload) if "media_type" in payload else None,
        create_time=payload["create_time"],
        update_time=payload["update_time"],
        vectors=vectors or {},
        background_similarities=dict(get(BACKGROUNDS_KEY, ())),
        features=features_from_payloads([payload])[0] if FEATURES_KEY in payload else b"",
        thumbnail_version=get(THUMBNAIL_KEY, ""),
    )


def updated_payload(stored: Payload, entry: Entry, keys: Iterable[str]) -> Payload:
    """Return a stored payload with some keys, and the update time, taken from the entry.

    Other keys stay as stored, including those that only a later version can read.
    """
    changed = entry_to_payload(entry, "")
    payload = dict(stored)
    for key in (*keys, "update_time"):
        payload.pop(key, None)
        if key in changed:
            payload[key] = changed[key]
    return payload


def features_from_payloads(payloads: Iterable[Payload]) -> list[bytes]:
    """Return the features of entries; empty for an entry whose payload has none."""
    return base94.decode([payload.get(FEATURES_KEY, "") for payload in payloads])


def library_to_payload(library: Library, state: str) -> Payload:
    return {
        "kind": "library",
        "state": state,
        "library_id": library.library_id,
        "uid": library.uid,
        "type": int(library.type),
        # Libraries created before compact spaces existed have three members here.
        "spaces": [
            [space.name, space.dimensions, space.sparse, space.compact] for space in library.spaces
        ],
        "models": [[model.role, model.name, model.version] for model in library.models],
        "display_name": library.display_name,
        "description": library.description,
        "capacity": library.capacity,
        "thumbnails_disabled": library.thumbnails_disabled,
        "create_time": library.create_time,
        "update_time": library.update_time,
        "revision": library.revision,
        # A list, since tag names of callers must not become payload keys of the metadata.
        "tag_types": [[name, kind.value] for name, kind in sorted(library.tag_types.items())],
        "attribute_names": sorted(library.attribute_names),
        "indexed_fields": sorted(library.indexed_fields),
    }


def library_from_payload(payload: Payload) -> Library:
    library = Library(
        library_id=payload["library_id"],
        uid=payload["uid"],
        type=_library_type(payload["type"]),
        spaces=tuple(VectorSpace(*space) for space in payload["spaces"]),
        models=tuple(ModelVersion(*model) for model in payload["models"]),
        display_name=payload["display_name"],
        description=payload["description"],
        capacity=payload["capacity"],
        thumbnails_disabled=payload["thumbnails_disabled"],
        create_time=payload["create_time"],
        update_time=payload["update_time"],
        revision=payload.get("revision", 0),
        tag_types={name: FieldType(kind) for name, kind in payload["tag_types"]},
        attribute_names=frozenset(payload["attribute_names"]),
    )
    # Earlier versions indexed each tag and attribute at its first use.
    indexed = payload.get("indexed_fields", library.optional_fields())
    return replace(library, indexed_fields=frozenset(indexed))


def _subject_to_payload(subject: Subject) -> Payload:
    return {
        "box": list(subject.box),
        "category": _category_number(subject.category),
        "score": subject.score,
        "colors": [[color.name, color.hex, color.share] for color in subject.colors],
        "attributes": [
            [attribute.name, attribute.value, attribute.score] for attribute in subject.attributes
        ],
    }


def _subject_from_payload(payload: Payload) -> Subject:
    return Subject(
        # Earlier versions stored subjects without a box as null.
        box=NO_BOX if payload["box"] is None else Box(*payload["box"]),
        category=_category(payload["category"]),
        score=payload["score"],
        colors=[Color(*color) for color in payload["colors"]],
        attributes=[Attribute(*attribute) for attribute in payload["attributes"]],
    )


def _category_number(category: Category | None) -> int:
    return 0 if category is None else int(category)


def _category(number: int) -> Category | None:
    """Return the category of a stored number; None for 0 and for numbers of a later version."""
    try:
        return Category(number)
    except ValueError:
        return None


def _library_type(number: int) -> LibraryType | int:
    """Return the type of a stored number, or the number if it is of a later version."""
    try:
        return LibraryType(number)
    except ValueError:
        return number


def _info_to_payload(info: PictureInfo) -> Payload:
    return {
        "width": info.width,
        "height": info.height,
        "size_bytes": info.size_bytes,
        "sha256": info.sha256,
        "media_type": info.media_type,
        "sharpness": info.sharpness,
    }


def _info_from_payload(payload: dict[str, Any]) -> PictureInfo:
    return PictureInfo(
        width=payload["width"],
        height=payload["height"],
        size_bytes=payload["size_bytes"],
        sha256=payload["sha256"],
        media_type=payload["media_type"],
        sharpness=payload["sharpness"],
    )
