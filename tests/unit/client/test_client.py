"""The client's own logic: field names, retries, paging, authorization."""
# ruff: noqa: S106  # page tokens are not passwords

from __future__ import annotations

import asyncio
import inspect

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.rpc.status_pb2 import Status

from imagesearch.client import (
    AsyncClient,
    Category,
    Client,
    Image,
    ImageSearchError,
    Library,
    LibraryType,
    ListImagesResponse,
    ListLibrariesResponse,
    request_builders,
)
from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from tests.unit.client.conftest import FakeGateway, request_ids, status

BIG_PICTURE = bytes(3 * 1024 * 1024)
"""Content of a picture that exceeds gRPC's default retry buffer."""


def test_a_call_returns_the_response_message(gateway: FakeGateway) -> None:
    gateway.answers("GetLibrary", Library(name="libraries/shop", image_count=3))
    with Client(gateway.target) as client:
        assert client.get_library(name="libraries/shop").image_count == 3


def test_the_target_defaults_to_the_environment_variable(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.answers("GetLibrary", Library())
    monkeypatch.setenv("IMAGESEARCH_TARGET", gateway.target)
    with Client() as client:
        client.get_library(name="libraries/shop")
    monkeypatch.setenv("IMAGESEARCH_TARGET", "elsewhere:1")
    with Client(gateway.target) as client:
        assert client.target == gateway.target


def test_the_token_is_sent_with_every_call(gateway: FakeGateway) -> None:
    gateway.answers("GetLibrary", Library())
    with Client(gateway.target, token="secret") as client:
        client.get_library(name="libraries/shop")
    assert gateway.metadata[0]["authorization"] == "Bearer secret"


def test_a_mutation_is_retried_with_its_request_id_if_unavailable(
    gateway: FakeGateway,
) -> None:
    gateway.answers(
        "AddImage", grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE, Image(image_id="a")
    )
    with Client(gateway.target) as client:
        stored = client.add_image(parent="libraries/shop", image=BIG_PICTURE)
    assert stored.image_id == "a"
    first, *others = request_ids(gateway.requests)
    assert first
    assert others == [first, first]


def test_other_errors_are_not_retried(gateway: FakeGateway) -> None:
    gateway.answers("AddImage", grpc.StatusCode.INTERNAL, Image())
    with Client(gateway.target) as client, pytest.raises(ImageSearchError):
        client.add_image(parent="libraries/shop", image=b"picture")
    assert len(gateway.requests) == 1


def test_each_mutation_has_its_own_request_id(gateway: FakeGateway) -> None:
    gateway.answers("DeleteImage", Empty())
    with Client(gateway.target) as client:
        client.delete_image(name="libraries/shop/images/a")
        client.delete_image(name="libraries/shop/images/a")
    first, second = request_ids(gateway.requests)
    assert first != second


def test_each_picture_of_a_batch_has_a_request_id(gateway: FakeGateway) -> None:
    gateway.answers("BatchAddImages", image_pb2.BatchAddImagesResponse())
    with Client(gateway.target) as client:
        client.batch_add_images(
            parent="libraries/shop",
            requests=[
                image_pb2.AddImageRequest(image_id="without"),
                request_builders.add_image(image_id="mine", image=b"picture", request_id="mine"),
            ],
        )
    generated, given = request_ids(gateway.requests[0].requests)
    assert generated
    assert given == "mine"


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_every_mutation_takes_a_request_id(client: type[Client | AsyncClient]) -> None:
    """A mutation needs a request id: calls are retried and could otherwise take effect twice."""
    for name, method in inspect.getmembers(client, inspect.isfunction):
        if name.split("_")[0] in {"create", "update", "delete", "add"}:
            assert "request_id" in inspect.signature(method).parameters, name


def test_a_call_over_the_message_limit_is_not_sent(gateway: FakeGateway) -> None:
    with Client(gateway.target) as client, pytest.raises(ImageSearchError) as caught:
        client.add_image(parent="libraries/shop", image=bytes(33 * 1024 * 1024))
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert gateway.requests == []


def test_iteration_covers_all_pages(gateway: FakeGateway) -> None:
    gateway.answers(
        "ListImages",
        ListImagesResponse(images=[Image(image_id="a"), Image(image_id="b")], next_page_token="2"),
        ListImagesResponse(next_page_token="3"),
        ListImagesResponse(images=[Image(image_id="c")]),
    )
    with Client(gateway.target) as client:
        images = list(client.images(parent="libraries/shop", filter="width > 1"))
    assert [image.image_id for image in images] == ["a", "b", "c"]
    assert [request.page_token for request in gateway.requests] == ["", "2", "3"]
    assert {request.filter for request in gateway.requests} == {"width > 1"}


def test_the_async_client_retries_iterates_and_raises_like_the_client(gateway: FakeGateway) -> None:
    gateway.answers("AddImage", grpc.StatusCode.UNAVAILABLE, Image(image_id="a"))
    gateway.answers(
        "ListLibraries",
        ListLibrariesResponse(libraries=[Library(name="libraries/a")], next_page_token="2"),
        ListLibrariesResponse(libraries=[Library(name="libraries/b")]),
    )
    not_found = status(grpc.StatusCode.NOT_FOUND, "no", "IMAGE_NOT_FOUND", metadata={"image": "x"})
    gateway.answers("GetImage", not_found)

    async def calls() -> tuple[str, list[str], ImageSearchError]:
        async with AsyncClient(gateway.target) as client:
            stored = await client.add_image(parent="libraries/shop", image=BIG_PICTURE)
            names = [library.name async for library in client.libraries()]
            with pytest.raises(ImageSearchError) as caught:
                await client.get_image(name="x")
            return stored.image_id, names, caught.value

    image_id, names, error = asyncio.run(calls())
    assert image_id == "a"
    assert names == ["libraries/a", "libraries/b"]
    assert (error.reason, dict(error.metadata)) == ("IMAGE_NOT_FOUND", {"image": "x"})


def test_both_clients_have_the_same_methods() -> None:
    def methods(client: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(client, inspect.isfunction)
            if not name.startswith("_")
        }

    assert methods(Client) == methods(AsyncClient)


def test_the_update_mask_has_only_the_given_fields() -> None:
    update = request_builders.update_library(name="libraries/shop", display_name="", capacity=0)
    assert list(update.update_mask.paths) == ["display_name", "capacity"]


def test_single_tags_are_set_and_removed_by_path() -> None:
    update = request_builders.update_image(
        name="libraries/shop/images/a",
        category=Category.CATEGORY_BOTTOMS,
        set_tags={"price": 9.5, "old": None},
    )
    assert list(update.update_mask.paths) == ["category", "tags.price", "tags.old"]
    assert set(update.image.tags) == {"price"}


def test_empty_tags_replace_all_tags() -> None:
    update = request_builders.update_image(name="libraries/shop/images/a", tags={})
    assert list(update.update_mask.paths) == ["tags"]


def test_thresholds_are_absent_unless_given() -> None:
    search = request_builders.search_images(parent="libraries/shop", image=b"picture")
    assert not search.HasField("min_score")
    assert not search.HasField("subject_detection")
    assert request_builders.search_images(image_name="x", min_score=0.0).HasField("min_score")


def test_a_query_is_either_a_picture_or_a_name() -> None:
    assert request_builders.search_images(image=b"").WhichOneof("query") == "image"
    assert request_builders.search_images(image_name="x").WhichOneof("query") == "image_name"
    assert request_builders.search_images(page_token="x").WhichOneof("query") is None


def test_keywords_set_their_fields() -> None:
    created = request_builders.create_library(
        library_id="shop", library_type=LibraryType.LIBRARY_TYPE_PRODUCT, capacity=5
    )
    assert created.library == library_pb2.Library(type=LibraryType.LIBRARY_TYPE_PRODUCT, capacity=5)
    searched = request_builders.search_images(
        relation=search_pb2.RELATION_BOTH, distinct_entities=True
    )
    assert searched.relation == search_pb2.RELATION_BOTH
    assert searched.distinct_entities


OVERLOADED = status(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", "OVERLOADED", retry_after_s=0.01)


def test_a_call_that_an_overloaded_suite_refused_is_repeated(gateway: FakeGateway) -> None:
    gateway.answers("AddImage", OVERLOADED, OVERLOADED, Image(image_id="cat"))
    with Client(gateway.target) as client:
        assert client.add_image(parent="libraries/zoo", image=b"cat").image_id == "cat"
    assert len(set(request_ids(gateway.requests))) == 1
    assert len(gateway.requests) == 3


async def test_the_asyncio_client_repeats_refused_calls(gateway: FakeGateway) -> None:
    gateway.answers("GetLibrary", OVERLOADED, Library(name="libraries/zoo"))
    async with AsyncClient(gateway.target) as client:
        assert (await client.get_library(name="libraries/zoo")).name == "libraries/zoo"


def test_refused_calls_are_repeated_a_bounded_number_of_times(gateway: FakeGateway) -> None:
    gateway.answers("GetLibrary", OVERLOADED)
    with Client(gateway.target) as client, pytest.raises(ImageSearchError) as caught:
        client.get_library(name="libraries/zoo")
    assert caught.value.reason == "OVERLOADED"
    assert len(gateway.requests) == 5


@pytest.mark.parametrize(
    "refusal",
    [
        status(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", "OVERLOADED", retry_after_s=60),
        status(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "STORAGE_FULL", retry_after_s=0.01),
    ],
)
def test_calls_are_not_repeated_after_their_deadline_or_for_other_reasons(
    gateway: FakeGateway, refusal: Status
) -> None:
    gateway.answers("GetLibrary", refusal)
    with Client(gateway.target, timeout_s=30) as client, pytest.raises(ImageSearchError):
        client.get_library(name="libraries/zoo")
    assert len(gateway.requests) == 1
