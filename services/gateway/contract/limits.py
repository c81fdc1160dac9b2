"""Limits of request fields, and their checks.

Each check returns the valid value and raises ServiceError with the field otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from imagesearch_services.common.errors import Reason, ServiceError, field_error, missing_field
from imagesearch_services.common.types import Box, TagValue
from imagesearch_services.gateway.contract.filter_fields import TAG_NAME
from imagesearch_services.gateway.model import ImageFields, LibraryFields
from imagesearch_services.gateway.names import check_opaque_id

MAX_IMAGE_BYTES = 10 * 1024 * 1024
"""Maximum bytes of a picture file."""
MAX_BATCH_ITEMS = 100
"""Maximum items per batch."""
MAX_NAMES = 1000
"""Maximum names per DeleteImages call."""
MAX_TAGS = 64
"""Maximum tags per image."""
MAX_TAG_VALUE_BYTES = 1024
"""Maximum bytes of a string tag."""
MAX_CUSTOM_CONTENT_BYTES = 4096
"""Maximum bytes of the custom content of an image."""
MAX_REQUEST_ID_BYTES = 128
"""Maximum bytes of a request id."""
MAX_DISPLAY_NAME_BYTES = 255
"""Maximum bytes of the display name of a library."""
MAX_DESCRIPTION_BYTES = 4096
"""Maximum bytes of the description of a library."""
MAX_PAGE_SIZE = 100
"""Maximum items per page; a larger page_size is lowered to it."""
MAX_PAGE_TOKEN_BYTES = 128 * 1024
"""Maximum bytes of a page token."""
MAX_REQUEST_BYTES = {
    **dict.fromkeys(
        (
            "CreateLibrary",
            "GetLibrary",
            "UpdateLibrary",
            "DeleteLibrary",
            "GetImage",
            "DeleteImage",
            "GetThumbnail",
            "GetServerInfo",
        ),
        64 * 1024,
    ),
    **dict.fromkeys(("ListLibraries", "ListImages", "FindDuplicates"), 256 * 1024),
    **dict.fromkeys(("UpdateImage", "DeleteImages", "RejectPairs"), 4 * 1024 * 1024),
}
"""Maximum bytes of a request without a picture, by method."""


def check_picture(content: bytes, *, field: str = "image.content") -> bytes:
    """Return the bytes of a picture file; FIELD_REQUIRED or IMAGE_TOO_LARGE otherwise."""
    if not content:
        raise missing_field(field)
    if len(content) > MAX_IMAGE_BYTES:
        raise ServiceError(
            Reason.IMAGE_TOO_LARGE,
            f"{field}: the file has {len(content)} bytes, the limit is {MAX_IMAGE_BYTES}",
            metadata={
                "limit": str(MAX_IMAGE_BYTES),
                "actual": str(len(content)),
                "unit": "bytes",
            },
        )
    return content


def check_region(box: Box, *, field: str = "region") -> Box:
    """Return the box if it can overlap a picture. Embedding clips it to the picture."""
    corners = (box.x_min, box.y_min, box.x_max, box.y_max)
    if not all(map(math.isfinite, corners)):
        raise _region_error(field, "coordinates must be finite numbers")
    if box.x_min >= box.x_max or box.y_min >= box.y_max:
        raise _region_error(field, "must have x_min < x_max and y_min < y_max")
    if box.x_max <= 0 or box.y_max <= 0:
        raise _region_error(field, "must overlap the picture")
    return box


def check_image_fields(fields: ImageFields, *, under: str = "") -> ImageFields:
    """Return the fields of an image if all are valid.

    Args:
        fields: fields from a request.
        under: prefix of the fields' paths in errors, for example "image.".
    """
    check_opaque_id(fields.entity_id, field=f"{under}entity_id")
    check_bytes(fields.custom_content, MAX_CUSTOM_CONTENT_BYTES, field=f"{under}custom_content")
    _check_tags(fields.tags, field=f"{under}tags")
    return fields


def check_tag_name(name: str, *, field: str) -> str:
    if not TAG_NAME.fullmatch(name):
        raise field_error(
            field,
            f'"{name}" is not a tag name: use 1 to 63 characters of a-z, A-Z, 0-9 and "_", '
            "not starting with a digit",
        )
    return name


def check_library_fields(fields: LibraryFields) -> LibraryFields:
    """Return the fields of a library if all are valid."""
    check_bytes(fields.display_name, MAX_DISPLAY_NAME_BYTES, field="library.display_name")
    check_bytes(fields.description, MAX_DESCRIPTION_BYTES, field="library.description")
    if fields.capacity < 0:
        raise field_error("library.capacity", "must be 0 (no limit) or more")
    return fields


def check_request_id(request_id: str) -> str:
    return check_bytes(request_id, MAX_REQUEST_ID_BYTES, field="request_id")


def check_page_token(page_token: str) -> str:
    return check_bytes(page_token, MAX_PAGE_TOKEN_BYTES, field="page_token")


def check_page_size(page_size: int, *, default: int) -> int:
    """Return the items per page: `default` for 0, at most `MAX_PAGE_SIZE`."""
    if page_size < 0:
        raise field_error("page_size", "must be 0 or more")
    return min(page_size or default, MAX_PAGE_SIZE)


def check_min_score(min_score: float) -> float:
    if not 0 <= min_score <= 1:
        raise field_error("min_score", "must be between 0 and 1")
    return min_score


def check_max_false_positive_rate(rate: float) -> float:
    if not 0 < rate <= 1:
        raise field_error("max_false_positive_rate", "must be above 0 and at most 1")
    return rate


def check_count(count: int, limit: int, *, field: str) -> None:
    """Raise FIELD_REQUIRED for 0 items and FIELD_INVALID for more than `limit`."""
    if count == 0:
        raise missing_field(field)
    if count > limit:
        raise field_error(field, f"must have at most {limit} items, not {count}")


def check_bytes(value: str, limit: int, *, field: str) -> str:
    """Return the string if it has at most `limit` bytes in UTF-8."""
    # A character has at most four bytes: short strings need not be encoded.
    if len(value) * 4 > limit and len(value.encode()) > limit:
        raise field_error(field, f"must have at most {limit} bytes of UTF-8")
    return value


def _check_tags(tags: Mapping[str, TagValue], *, field: str) -> None:
    if len(tags) > MAX_TAGS:
        raise field_error(field, f"must have at most {MAX_TAGS} tags, not {len(tags)}")
    for name, value in tags.items():
        check_tag_name(name, field=field)
        if isinstance(value, str):
            check_bytes(value, MAX_TAG_VALUE_BYTES, field=f"{field}.{name}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise field_error(f"{field}.{name}", "must be a finite number")


def _region_error(field: str, description: str) -> ServiceError:
    return field_error(field, description, reason=Reason.REGION_INVALID)
