"""Access, admission, deadlines, unavailable services and recreated libraries."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.type.v1 import library_type_pb2
from imagesearch_services.common.errors import Reason
from tests.e2e.errors import described, refused
from tests.integration.gateway.conftest import NOT_SERVING, Gateways, Stub
from tests.integration.gateway.pictures import image, jpeg
from tests.ports import free_port


def add(library: str, image_id: str, **fields: Any) -> image_pb2.AddImageRequest:
    return image_pb2.AddImageRequest(
        parent=library, image_id=image_id, **{"image": image(1), **fields}
    )


def search(library: str, seed: int = 1) -> search_pb2.SearchImagesRequest:
    return search_pb2.SearchImagesRequest(parent=library, image=image(seed))


def test_calls_need_a_token_and_health_checks_do_not(gateways: Gateways) -> None:
    gateway = gateways.start(TOKENS="one,two")  # this waits for health without a token
    request = library_pb2.ListLibrariesRequest()
    assert refused(gateway.ListLibraries, request).reason is Reason.UNAUTHENTICATED
    wrong = (("authorization", "Bearer three"),)
    error = refused(gateway.ListLibraries, request, metadata=wrong)
    assert error.reason is Reason.UNAUTHENTICATED
    gateway.ListLibraries(request, metadata=(("authorization", "Bearer two"),))


def test_pictures_beyond_the_budget_are_rejected_as_overload(
    gateways: Gateways, library: str
) -> None:
    gateway = gateways.start(MAX_IN_FLIGHT_BYTES=str(2 * len(jpeg(1))))

    def attempt(row: int) -> Reason | None:
        try:
            gateway.AddImage(add(library, f"{row}"))
        except grpc.RpcError as caught:
            error = described(caught)
            assert error.retry_after_s
            return error.reason
        return None

    with ThreadPoolExecutor(24) as pool:
        outcomes = list(pool.map(attempt, range(24)))
    assert set(outcomes) == {None, Reason.OVERLOADED}
    stored = gateway.GetLibrary(library_pb2.GetLibraryRequest(name=library)).image_count
    assert stored == outcomes.count(None)
    gateway.AddImage(add(library, "afterwards"))


def test_a_retry_after_a_deadline_adds_no_second_image(gateway: Stub, library: str) -> None:
    request = add(library, "a", request_id=f"once in {library}")
    with pytest.raises(grpc.RpcError) as caught:
        gateway.AddImage(request, timeout=0.001)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert gateway.AddImage(request).image_id == "a"
    assert gateway.GetLibrary(library_pb2.GetLibraryRequest(name=library)).image_count == 1


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ("EMBEDDING_TARGET", Reason.EMBEDDING_UNAVAILABLE),
        ("CATALOG_TARGET", Reason.CATALOG_UNAVAILABLE),
    ],
)
def test_an_unavailable_service_is_named_and_makes_the_gateway_unhealthy(
    gateways: Gateways, library: str, variable: str, reason: Reason
) -> None:
    unused = f"127.0.0.1:{free_port()}"
    gateway = gateways.start(until=NOT_SERVING, **{variable: unused})
    error = refused(gateway.SearchImages, search(library), timeout=10)
    assert error.reason is reason
    assert error.retry_after_s


def test_a_library_recreated_by_another_gateway_is_used_at_once(
    gateways: Gateways, gateway: Stub
) -> None:
    other = gateways.start()
    library_id = f"again-{uuid.uuid4().hex[:8]}"
    name = f"libraries/{library_id}"
    create = library_pb2.CreateLibraryRequest(
        library_id=library_id,
        library=library_pb2.Library(type=library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE),
    )
    for round_number in range(3):
        other.CreateLibrary(create)
        assert not gateway.SearchImages(search(name)).matches
        gateway.AddImage(add(name, f"{round_number}"))
        (match,) = gateway.SearchImages(search(name)).matches
        assert match.image.image_id == f"{round_number}"
        other.DeleteLibrary(library_pb2.DeleteLibraryRequest(name=name))
        error = refused(gateway.SearchImages, search(name))
        assert error.reason is Reason.LIBRARY_NOT_FOUND


def test_a_page_of_a_recreated_library_fails_with_library_changed(
    gateways: Gateways, gateway: Stub
) -> None:
    signed = gateways.start(PAGE_TOKEN_KEY="secret")  # noqa: S106
    create = library_pb2.CreateLibraryRequest(
        library_id="page-anew",
        library=library_pb2.Library(type=library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE),
    )
    delete = library_pb2.DeleteLibraryRequest(name="libraries/page-anew")
    signed.CreateLibrary(create)
    for row in range(2):
        signed.AddImage(add(delete.name, f"{row}"))
    request = search(delete.name)
    request.page_size = 1
    page = search_pb2.SearchImagesRequest(
        parent=delete.name, page_token=signed.SearchImages(request).next_page_token
    )
    assert len(signed.SearchImages(page).matches) == 1
    assert refused(gateway.SearchImages, page).reason is Reason.PAGE_TOKEN_INVALID
    signed.DeleteLibrary(delete)
    signed.CreateLibrary(create)
    assert refused(signed.SearchImages, page).reason is Reason.LIBRARY_CHANGED
    signed.DeleteLibrary(delete)
