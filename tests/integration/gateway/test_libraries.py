"""Libraries, with a real Catalog."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import field_mask_pb2

from imagesearch.gateway.v1 import library_pb2
from imagesearch.type.v1 import library_type_pb2
from imagesearch_services.common.errors import Reason
from tests.e2e.errors import refused
from tests.integration.gateway.conftest import Stub, temporary_library

WHOLE_IMAGE = library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE


def create(
    library_id: str, request_id: str = "", **fields: Any
) -> library_pb2.CreateLibraryRequest:
    return library_pb2.CreateLibraryRequest(
        library_id=library_id,
        library=library_pb2.Library(**{"type": WHOLE_IMAGE, **fields}),
        request_id=request_id,
    )


@pytest.fixture
def name(gateway: Stub) -> Iterator[str]:
    """Name for a new library, which is deleted after the test."""
    yield "libraries/made-by-test"
    gateway.DeleteLibrary(library_pb2.DeleteLibraryRequest(name="libraries/made-by-test"))


def test_a_library_has_its_given_fields_and_the_models_of_its_type(
    gateway: Stub, name: str
) -> None:
    created = gateway.CreateLibrary(
        create("made-by-test", display_name="Mine", description="d", capacity=7)
    )
    assert created.name == name
    assert (created.type, created.display_name, created.description) == (WHOLE_IMAGE, "Mine", "d")
    assert (created.capacity, created.image_count) == (7, 0)
    assert [(model.role, model.name) for model in created.models] == [
        ("copy", "sscd"),
        ("semantic", "efficientnet_lite2"),
    ]
    assert created.create_time == created.update_time
    assert created.create_time.seconds > 0
    assert gateway.GetLibrary(library_pb2.GetLibraryRequest(name=name)) == created


def test_a_repeated_creation_returns_the_first_response(gateway: Stub, name: str) -> None:
    request = create("made-by-test", request_id="made-once")
    created = gateway.CreateLibrary(request)
    assert gateway.CreateLibrary(request) == created
    assert created.name == name
    error = refused(gateway.CreateLibrary, create("made-by-test"))
    assert error.reason is Reason.LIBRARY_ALREADY_EXISTS
    assert error.metadata == {"library": name}
    error = refused(gateway.CreateLibrary, create("other", request_id="made-once"))
    assert error.reason is Reason.REQUEST_ID_REUSED


@pytest.mark.parametrize(
    ("request_message", "reason", "field"),
    [
        (create(""), Reason.FIELD_REQUIRED, "library_id"),
        (create("Bad"), Reason.FIELD_INVALID, "library_id"),
        (create("a", type=0), Reason.FIELD_REQUIRED, "library.type"),
        (create("a", type=77), Reason.FIELD_INVALID, "library.type"),
        (create("a", capacity=-1), Reason.FIELD_INVALID, "library.capacity"),
        (create("a", request_id="x" * 129), Reason.FIELD_INVALID, "request_id"),
    ],
)
def test_an_invalid_creation_is_rejected_by_field(
    gateway: Stub,
    request_message: library_pb2.CreateLibraryRequest,
    reason: Reason,
    field: str,
) -> None:
    error = refused(gateway.CreateLibrary, request_message)
    assert (error.reason, error.fields[0].field) == (reason, field)


def test_libraries_are_listed_by_name_in_pages(gateway: Stub) -> None:
    with (
        temporary_library(gateway) as first,
        temporary_library(gateway) as second,
        temporary_library(gateway) as third,
    ):
        listed: list[str] = []
        token = ""
        while True:
            page = gateway.ListLibraries(
                library_pb2.ListLibrariesRequest(page_size=2, page_token=token)
            )
            assert len(page.libraries) <= 2
            listed += [library.name for library in page.libraries]
            token = page.next_page_token
            if not token:
                break
        assert listed == sorted(listed)
        assert {first, second, third} <= set(listed)
    bad = library_pb2.ListLibrariesRequest(page_token="nonsense")  # noqa: S106
    assert refused(gateway.ListLibraries, bad).reason is Reason.PAGE_TOKEN_INVALID
    negative = library_pb2.ListLibrariesRequest(page_size=-1)
    assert refused(gateway.ListLibraries, negative).fields[0].field == "page_size"


def test_an_update_changes_the_fields_of_its_mask(gateway: Stub, library: str) -> None:
    before = gateway.GetLibrary(library_pb2.GetLibraryRequest(name=library))
    after = gateway.UpdateLibrary(
        library_pb2.UpdateLibraryRequest(
            library=library_pb2.Library(name=library, display_name="New", capacity=9),
            update_mask=field_mask_pb2.FieldMask(paths=["display_name"]),
        )
    )
    assert (after.display_name, after.capacity) == ("New", 0)
    assert after.update_time.ToNanoseconds() > before.update_time.ToNanoseconds()
    unmasked = library_pb2.UpdateLibraryRequest(
        library=library_pb2.Library(name=library, capacity=9)
    )
    after = gateway.UpdateLibrary(unmasked)
    assert (after.display_name, after.capacity) == ("New", 9)
    unchanged = library_pb2.UpdateLibraryRequest(library=library_pb2.Library(name=library))
    assert gateway.UpdateLibrary(unchanged) == after
    unchanged.update_mask.paths.append("image_count")
    error = refused(gateway.UpdateLibrary, unchanged)
    assert (error.reason, error.fields[0].field) == (Reason.FIELD_INVALID, "update_mask")


def test_a_deleted_library_is_not_found(gateway: Stub) -> None:
    with temporary_library(gateway) as name:
        pass
    for call, request in (
        (gateway.GetLibrary, library_pb2.GetLibraryRequest(name=name)),
        (gateway.DeleteLibrary, library_pb2.DeleteLibraryRequest(name=name)),
        (
            gateway.UpdateLibrary,
            library_pb2.UpdateLibraryRequest(library=library_pb2.Library(name=name, capacity=1)),
        ),
    ):
        error = refused(call, request)
        assert error.reason is Reason.LIBRARY_NOT_FOUND
        assert error.metadata == {"library": name}
