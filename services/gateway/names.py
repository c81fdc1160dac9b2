"""Resource names: `libraries/{library}` and `libraries/{library}/images/{image}` (AIP-122)."""

from __future__ import annotations

import re
import unicodedata
import uuid

from imagesearch_services.common.errors import field_error, missing_field

LIBRARY_ID = re.compile(r"[a-z][a-z0-9-]{0,62}", re.ASCII)
LIBRARY_ID_RULE = '1 to 63 characters of a-z, 0-9 and "-", starting with a letter'
MAX_ID_BYTES = 255
"""Maximum bytes of image ids and entity ids in UTF-8."""

LIBRARIES = "libraries/"
IMAGES = "/images/"

_REQUEST_ID_NAMESPACE = uuid.UUID("5b0f8a53-6f43-5d0e-9a4e-0f3f1c6f7a51")
"""UUID namespace of image ids that are derived from request ids."""


def library_name(library_id: str) -> str:
    return f"{LIBRARIES}{library_id}"


def image_name(library_id: str, image_id: str) -> str:
    return f"{LIBRARIES}{library_id}{IMAGES}{image_id}"


def parse_library_name(name: str, *, field: str) -> str:
    """Return the library id of a resource name.

    Args:
        name: resource name of a library.
        field: request field of the name, for errors.

    Raises:
        ServiceError: FIELD_REQUIRED, FIELD_INVALID.
    """
    if not name:
        raise missing_field(field)
    library_id = name.removeprefix(LIBRARIES)
    if not name.startswith(LIBRARIES) or not LIBRARY_ID.fullmatch(library_id):
        raise field_error(
            field,
            f'must be "libraries/{{library}}"; the id has {LIBRARY_ID_RULE}',
        )
    return library_id


def parse_image_name(name: str, *, field: str) -> tuple[str, str]:
    """Return the library id and the image id of a resource name; raise as `parse_library_name`."""
    if not name:
        raise missing_field(field)
    parent, separator, image_id = name.partition(IMAGES)
    library_id = parent.removeprefix(LIBRARIES)
    if not (separator and parent.startswith(LIBRARIES) and LIBRARY_ID.fullmatch(library_id)):
        raise field_error(
            field,
            f'must be "libraries/{{library}}/images/{{image}}"; the library id has '
            f"{LIBRARY_ID_RULE}",
        )
    return library_id, check_image_id(image_id, field=field)


def check_library_id(library_id: str, *, field: str) -> str:
    """Return the id if it is a valid library id; raise as `parse_library_name`."""
    if not library_id:
        raise missing_field(field)
    if not LIBRARY_ID.fullmatch(library_id):
        raise field_error(field, f"must have {LIBRARY_ID_RULE}")
    return library_id


def check_image_id(image_id: str, *, field: str) -> str:
    """Return the id if it is a valid image id; raise as `parse_library_name`."""
    if not image_id:
        raise missing_field(field)
    check_opaque_id(image_id, field=field)
    if "/" in image_id or image_id in {".", ".."}:
        raise field_error(field, 'must not contain "/" and must not be "." or ".."')
    return image_id


def check_opaque_id(value: str, *, field: str) -> str:
    """Return the id if it has at most 255 bytes and no control characters; it may be empty.

    Raises:
        ServiceError: FIELD_INVALID.
    """
    if len(value.encode()) > MAX_ID_BYTES:
        raise field_error(field, f"must have at most {MAX_ID_BYTES} bytes of UTF-8")
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise field_error(field, "must not contain control characters")
    return value


def make_image_id(request_id: str) -> str:
    """Return a new image id, for a picture that is added without an id.

    It is derived from the request id, if any, so that a retry finds the image that the first
    attempt stored.
    """
    if request_id:
        return str(uuid.uuid5(_REQUEST_ID_NAMESPACE, request_id))
    return str(uuid.uuid4())
