"""Reading of library requests: values, and errors by field."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import field_mask_pb2

from imagesearch.gateway.v1 import library_pb2
from imagesearch_services.common.errors import Reason
from imagesearch_services.common.types import LibraryType
from imagesearch_services.gateway.contract.libraries import (
    read_library_changes,
    read_library_fields,
    read_library_type,
)
from tests.unit.gateway.contract.requests import refusal


def mask(*paths: str) -> field_mask_pb2.FieldMask:
    return field_mask_pb2.FieldMask(paths=paths)


def test_a_library_update_sets_the_fields_of_its_mask() -> None:
    library = library_pb2.Library(name="libraries/shop", display_name="x", capacity=5)
    request = library_pb2.UpdateLibraryRequest(library=library)
    assert read_library_changes(request) == {"display_name": "x", "capacity": 5}
    request.update_mask.paths.append("description")
    assert read_library_changes(request) == {"description": ""}


@pytest.mark.parametrize("path", ["name", "type", "image_count", "nothing", "*", "capacity.x", ""])
def test_a_library_update_of_another_field_is_rejected(path: str) -> None:
    error = refusal(read_library_changes, library_pb2.UpdateLibraryRequest(update_mask=mask(path)))
    assert error.fields[0].field == "update_mask"
    assert f'"{path}"' in error.message


def test_a_library_needs_a_known_type() -> None:
    assert read_library_type(1) is LibraryType.WHOLE_IMAGE
    assert refusal(read_library_type, 0).reason is Reason.FIELD_REQUIRED
    assert refusal(read_library_type, 9).reason is Reason.FIELD_INVALID


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("library.display_name", {"display_name": "x" * 256}),
        ("library.description", {"description": "x" * 4097}),
        ("library.capacity", {"capacity": -1}),
    ],
)
def test_fields_of_a_library_are_limited(field: str, fields: dict[str, Any]) -> None:
    error = refusal(read_library_fields, library_pb2.Library(**fields))
    assert error.fields[0].field == field
