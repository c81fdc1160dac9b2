"""Checks of libraries to create."""

from __future__ import annotations

import re

from imagesearch_services.catalog.model import Library, VectorSpace
from imagesearch_services.common.errors import field_error, missing_field

LIBRARY_ID = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")
SPACE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,63}@[A-Za-z0-9_.-]{1,63}\Z")
MAX_DIMENSIONS = 65_536
"""Maximum components of a dense vector."""
MAX_SPACES = 8
"""Maximum vector spaces per library."""


def check_new_library(library: Library) -> None:
    """Check the fields that CreateLibrary reads.

    Raises:
        ServiceError: FIELD_REQUIRED, FIELD_INVALID.
    """
    if not library.library_id:
        raise missing_field("library.library_id")
    if not LIBRARY_ID.match(library.library_id):
        raise field_error(
            "library.library_id",
            "must be 1 to 63 characters of a-z, 0-9 and -, beginning with a letter",
        )
    if library.capacity < 0:
        raise field_error("library.capacity", "must not be negative")
    if not library.spaces:
        raise missing_field("library.spaces")
    if len(library.spaces) > MAX_SPACES:
        raise field_error(
            "library.spaces", f"must have at most {MAX_SPACES} items, not {len(library.spaces)}"
        )
    if len({space.name for space in library.spaces}) < len(library.spaces):
        raise field_error("library.spaces", "must have different names")
    for number, space in enumerate(library.spaces):
        _check_space(f"library.spaces[{number}]", space)


def _check_space(field: str, space: VectorSpace) -> None:
    if not SPACE_NAME.match(space.name):
        raise field_error(
            f"{field}.name",
            'must be "NAME@VERSION"; each part has 1 to 63 characters of A-Z, a-z, 0-9, _, . and -',
        )
    if space.sparse and space.dimensions:
        raise field_error(f"{field}.dimensions", "must be 0 for a sparse space")
    if not space.sparse and not 1 <= space.dimensions <= MAX_DIMENSIONS:
        raise field_error(f"{field}.dimensions", f"must be 1 to {MAX_DIMENSIONS}")
