"""Checks of entries: ids, tags, sizes and numbers. They raise FIELD_INVALID or FIELD_REQUIRED."""

from __future__ import annotations

import math

from imagesearch_services.catalog.filters import INT64_MAX, INT64_MIN, NAME
from imagesearch_services.catalog.model import Entry
from imagesearch_services.common.errors import field_error, missing_field
from imagesearch_services.common.types import TagValue

MAX_ID_BYTES = 255
"""Maximum length of image and entity ids, in bytes of UTF-8."""
MAX_TAGS = 64
"""Maximum tags per entry."""
MAX_TAG_VALUE_BYTES = 1024
"""Maximum length of a string tag, in bytes of UTF-8."""
MAX_CUSTOM_CONTENT_BYTES = 4096
MAX_FEATURES_BYTES = 256 * 1024
MAX_THUMBNAIL_BYTES = 1024 * 1024


def check_image_id(field: str, image_id: str) -> None:
    if not image_id:
        raise missing_field(field)
    _check_bytes(field, image_id.encode(), MAX_ID_BYTES)
    if "/" in image_id or _has_control_character(image_id):
        raise field_error(field, 'must not contain "/" or control characters; percent-encode them')


def check_entry(field: str, entry: Entry) -> None:
    """Check an entry except its vectors; `field` is the path of the entry in the request."""
    check_image_id(f"{field}.image_id", entry.image_id)
    _check_bytes(f"{field}.entity_id", entry.entity_id.encode(), MAX_ID_BYTES)
    _check_bytes(f"{field}.custom_content", entry.custom_content.encode(), MAX_CUSTOM_CONTENT_BYTES)
    _check_bytes(f"{field}.features", entry.features, MAX_FEATURES_BYTES)
    _check_bytes(f"{field}.thumbnail", entry.thumbnail, MAX_THUMBNAIL_BYTES)
    if len(entry.tags) > MAX_TAGS:
        raise field_error(
            f"{field}.tags", f"must have at most {MAX_TAGS} items, not {len(entry.tags)}"
        )
    for name, value in entry.tags.items():
        _check_tag(f"{field}.tags.{name}", name, value)
    for name in entry.attributes():
        if not NAME.match(name):
            raise field_error(
                f"{field}.subject.attributes",
                f"attribute name {name!r} must be 1 to 63 characters of a-z, A-Z, 0-9 and _, "
                "not beginning with a digit",
            )
    _check_finite(field, entry)


def _check_bytes(field: str, data: bytes, limit: int) -> None:
    if len(data) > limit:
        raise field_error(field, f"must have at most {limit} bytes, not {len(data)}")


def _check_tag(field: str, name: str, value: TagValue) -> None:
    if not NAME.match(name):
        raise field_error(
            field,
            "a tag name must be 1 to 63 characters of a-z, A-Z, 0-9 and _, "
            "not beginning with a digit",
        )
    if isinstance(value, str):
        _check_bytes(field, value.encode(), MAX_TAG_VALUE_BYTES)
    if isinstance(value, float) and not math.isfinite(value):
        raise field_error(field, "must be finite")
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        raise field_error(field, "must fit in a signed 64-bit integer")


def _check_finite(field: str, entry: Entry) -> None:
    """Check for NaN and infinity, which the JSON-like payload of an engine can't hold."""
    numbers: list[float] = []
    if entry.region is not None:
        numbers += entry.region
    if entry.info is not None:
        numbers.append(entry.info.sharpness)
    if entry.subject is not None:
        numbers += entry.subject.box
        numbers.append(entry.subject.score)
        numbers += [color.share for color in entry.subject.colors]
        numbers += [attribute.score for attribute in entry.subject.attributes]
    if not all(map(math.isfinite, numbers)):
        raise field_error(field, "must not have NaN or infinity in region, info or subject")


def _has_control_character(text: str) -> bool:
    # C0 and C1 control codes, and DEL.
    return any(ord(letter) < ord(" ") or 0x7F <= ord(letter) <= 0x9F for letter in text)  # noqa: PLR2004
