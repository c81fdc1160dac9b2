"""FindDuplicates and RejectPairs, through the real Embedding, Triton and Catalog."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from imagesearch.catalog.v1 import catalog_service_pb2 as catalog_pb2
from imagesearch.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.type.v1 import library_type_pb2, picture_pb2, tag_pb2
from imagesearch_services.common.errors import Reason
from tests.e2e.errors import refused
from tests.integration.gateway.conftest import Gateways, Stub, temporary_library
from tests.pictures import encoded, photo

ORIGINALS = range(8)
Groups = list[list[str]]


def edited(seed: int, edit: str) -> Image.Image:
    picture = photo(seed)
    match edit:
        case "mirrored":
            return ImageOps.mirror(picture)
        case "dark":
            return ImageEnhance.Brightness(picture).enhance(0.6)
        case "small":
            return picture.resize((160, 120))
        case "cropped":
            return picture.crop((20, 15, 320, 240))
    return picture


@functools.cache
def content(seed: int, edit: str = "") -> bytes:
    return encoded(edited(seed, edit))


PICTURES = {
    **{f"p{seed}": (seed, "") for seed in ORIGINALS},
    "p0 mirrored": (0, "mirrored"),
    "p0 small": (0, "small"),
    "p1 dark": (1, "dark"),
    "p2 cropped": (2, "cropped"),
    "p2 again": (2, ""),
}
COPIES: Groups = [
    ["p0", "p0 mirrored", "p0 small"],
    ["p1", "p1 dark"],
    ["p2", "p2 again", "p2 cropped"],
]


def add(gateway: Stub, parent: str, pictures: dict[str, tuple[int, str]]) -> None:
    names = list(pictures)
    for start in range(0, len(names), 100):
        answer = gateway.BatchAddImages(
            image_pb2.BatchAddImagesRequest(
                parent=parent,
                requests=[
                    image_pb2.AddImageRequest(
                        image_id=name,
                        image=picture_pb2.ImageContent(content=content(*pictures[name])),
                        tags={"seed": tag_pb2.TagValue(int_value=pictures[name][0])},
                    )
                    for name in names[start : start + 100]
                ],
            )
        )
        assert not [result.error.message for result in answer.results if result.HasField("error")]


def store_identical_vectors(catalog_target: str, parent: str, count: int) -> None:
    """Store entries with the same embedding in a library."""
    library_id = parent.removeprefix("libraries/")
    with grpc.insecure_channel(catalog_target) as channel:
        catalog = CatalogServiceStub(channel)
        library = catalog.GetLibrary(catalog_pb2.GetLibraryRequest(library_id=library_id))
        vectors = [
            {
                "space": space.name,
                "values": np.eye(1, space.dimensions, dtype="<f4").tobytes(),
            }
            for space in library.spaces
        ]
        answer = catalog.PutEntries(
            catalog_pb2.PutEntriesRequest(
                library_id=library_id,
                entries=[
                    catalog_pb2.Entry(image_id=f"i{number}", vectors=vectors)
                    for number in range(count)
                ],
            )
        )
        assert all(result.HasField("entry") for result in answer.results)


def find(gateway: Stub, parent: str, **fields: Any) -> list[search_pb2.FindDuplicatesResponse]:
    request = search_pb2.FindDuplicatesRequest(parent=parent, **fields)
    return list(gateway.FindDuplicates(request, timeout=60))


def groups(messages: Iterable[search_pb2.FindDuplicatesResponse]) -> Groups:
    return sorted(
        sorted(member.image.image_id for member in message.group.images)
        for message in messages
        if message.HasField("group")
    )


def keepers(messages: Iterable[search_pb2.FindDuplicatesResponse]) -> list[str]:
    return sorted(
        message.group.images[0].image.image_id for message in messages if message.HasField("group")
    )


def reject(gateway: Stub, parent: str, *pairs: tuple[str, str], request_id: str = "") -> int:
    request = search_pb2.RejectPairsRequest(
        parent=parent,
        pairs=[
            search_pb2.ImagePair(name_a=f"{parent}/images/{a}", name_b=f"{parent}/images/{b}")
            for a, b in pairs
        ],
        request_id=request_id,
    )
    return gateway.RejectPairs(request).added_count


@pytest.fixture(scope="module")
def stocked(gateway: Stub) -> Iterator[str]:
    """Return a read-only library of photographs and edited copies of three of them."""
    with temporary_library(gateway) as name:
        originals = {image_id: source for image_id, source in PICTURES.items() if not source[1]}
        add(gateway, name, originals)
        add(
            gateway, name, {key: source for key, source in PICTURES.items() if key not in originals}
        )
        yield name


def test_edited_copies_are_grouped_with_their_originals(gateway: Stub, stocked: str) -> None:
    messages = find(gateway, stocked)
    assert groups(messages) == COPIES
    for message in messages:
        scores = [member.score for member in message.group.images]
        assert scores == sorted(scores, reverse=True)
        assert all(member.pixels_agree for member in message.group.images[1:])
    last = messages[-1]
    assert (last.checked_count, last.total_count) == (len(PICTURES), len(PICTURES))
    assert [message.next_page_token == "" for message in messages].index(True) == len(messages) - 1
    counts = [message.checked_count for message in messages]
    assert counts == sorted(counts)
    assert all(message.total_count == len(PICTURES) for message in messages)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (search_pb2.KEEP_POLICY_LARGEST, {"p0 small": False}),
        (search_pb2.KEEP_POLICY_OLDEST, {"p0": True, "p1": True, "p2": True}),
    ],
)
def test_the_keep_policy_selects_the_image_to_keep(
    gateway: Stub, stocked: str, policy: Any, expected: dict[str, bool]
) -> None:
    kept = keepers(find(gateway, stocked, keep=policy))
    assert len(kept) == len(COPIES)
    assert {name: name in kept for name in expected} == expected


def test_a_filter_applies_to_images_and_their_neighbors(gateway: Stub, stocked: str) -> None:
    messages = find(gateway, stocked, filter="tags.seed = 1 OR tags.seed = 5")
    assert groups(messages) == [["p1", "p1 dark"]]
    assert messages[-1].checked_count == 3


def test_a_call_resumes_after_the_last_message_received(gateway: Stub, stocked: str) -> None:
    whole = find(gateway, stocked)
    for stop in range(1, len(whole)):
        rest = find(gateway, stocked, page_token=whole[stop - 1].next_page_token)
        assert [message.group for message in rest] == [message.group for message in whole[stop:]]


def test_a_min_score_excludes_lower_scores(gateway: Stub, stocked: str) -> None:
    assert ["p2", "p2 again"] in [
        [name for name in group if name in {"p2", "p2 again"}]
        for group in groups(find(gateway, stocked, min_score=1.0))
    ]
    scores = [
        member.score
        for message in find(gateway, stocked, min_score=0.9)
        for member in message.group.images
    ]
    assert min(scores) >= 0.9


def test_rejected_pairs_are_not_grouped_again(gateway: Stub, library: str) -> None:
    add(gateway, library, {name: PICTURES[name] for name in ("p0", "p0 mirrored", "p0 small")})
    assert groups(find(gateway, library)) == [COPIES[0]]
    assert reject(gateway, library, ("p0", "p0 small"), request_id=f"{library}-1") == 1
    assert reject(gateway, library, ("p0", "p0 small"), request_id=f"{library}-1") == 1
    (group,) = groups(find(gateway, library))
    assert len(group) == 2
    assert group != ["p0", "p0 small"]
    assert reject(gateway, library, ("p0 mirrored", "p0"), ("p0 small", "p0 mirrored")) == 2
    assert groups(find(gateway, library)) == []
    # A new picture under the same id has no rejected pairs.
    gateway.DeleteImage(image_pb2.DeleteImageRequest(name=f"{library}/images/p0"))
    add(gateway, library, {"p0": PICTURES["p0"]})
    assert "p0" in groups(find(gateway, library))[0]


def test_without_thumbnails_embeddings_alone_decide(gateway: Stub) -> None:
    created = gateway.CreateLibrary(
        library_pb2.CreateLibraryRequest(
            library_id="duplicates-without-thumbnails",
            library=library_pb2.Library(
                type=library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE, thumbnails_disabled=True
            ),
        )
    )
    try:
        add(gateway, created.name, {name: PICTURES[name] for name in ("p1", "p1 dark", "p3")})
        messages = find(gateway, created.name)
        assert groups(messages) == [["p1", "p1 dark"]]
        assert not messages[0].group.images[1].pixels_agree
    finally:
        gateway.DeleteLibrary(library_pb2.DeleteLibraryRequest(name=created.name))


def test_three_hundred_copies_of_a_picture_are_one_group(
    gateway: Stub, library: str, catalog_target: str
) -> None:
    store_identical_vectors(catalog_target, library, 300)
    messages = find(gateway, library)
    (group,) = groups(messages)
    assert len(group) == 300
    assert messages[0].group.images[1].score == pytest.approx(1)


def test_an_empty_library_has_no_duplicates(gateway: Stub, library: str) -> None:
    (message,) = find(gateway, library)
    assert not message.HasField("group")
    assert (message.checked_count, message.total_count, message.next_page_token) == (0, 0, "")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"parent": ""}, Reason.FIELD_REQUIRED),
        ({"parent": "libraries/no-such"}, Reason.LIBRARY_NOT_FOUND),
        ({"min_score": 1.5}, Reason.FIELD_INVALID),
        ({"max_false_positive_rate": 0.0}, Reason.FIELD_INVALID),
        ({"keep": 9}, Reason.FIELD_INVALID),
        ({"filter": "tags.seed = "}, Reason.FILTER_INVALID),
        ({"filter": 'tags.seed = "x"'}, Reason.FILTER_INVALID),
        ({"page_token": "nonsense"}, Reason.PAGE_TOKEN_INVALID),
        ({"page_token": "x" * 200_000}, Reason.FIELD_INVALID),
    ],
    ids=[
        "no library",
        "missing library",
        "score",
        "rate",
        "policy",
        "filter",
        "unknown tag",
        "token",
        "long token",
    ],
)
def test_invalid_requests_are_refused(
    gateway: Stub, stocked: str, fields: dict[str, Any], reason: Reason
) -> None:
    request = search_pb2.FindDuplicatesRequest(**{"parent": stocked, **fields})
    error = refused(
        lambda message, **options: list(gateway.FindDuplicates(message, **options)), request
    )
    assert error.reason is reason


def test_a_token_of_another_request_or_library_is_refused(
    gateway: Stub, stocked: str, library: str
) -> None:
    token = find(gateway, stocked)[0].next_page_token
    for fields in ({"parent": library}, {"min_score": 0.5}, {"filter": "width > 1"}):
        request = search_pb2.FindDuplicatesRequest(
            **{"parent": stocked, "page_token": token, **fields}
        )
        error = refused(lambda message: list(gateway.FindDuplicates(message)), request)
        assert error.reason is Reason.PAGE_TOKEN_INVALID


def test_only_whole_image_libraries_have_duplicates(gateway: Stub) -> None:
    created = gateway.CreateLibrary(
        library_pb2.CreateLibraryRequest(
            library_id="product-duplicates",
            library=library_pb2.Library(type=library_type_pb2.LIBRARY_TYPE_PRODUCT),
        )
    )
    try:
        request = search_pb2.FindDuplicatesRequest(parent=created.name)
        error = refused(lambda message: list(gateway.FindDuplicates(message)), request)
        assert error.reason is Reason.LIBRARY_TYPE_MISMATCH
        assert error.metadata == {"library": created.name, "type": "PRODUCT"}
    finally:
        gateway.DeleteLibrary(library_pb2.DeleteLibraryRequest(name=created.name))


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        ([], Reason.FIELD_REQUIRED),
        ([("p0", "p0")], Reason.FIELD_INVALID),
        ([("p0", "gone")], Reason.IMAGE_NOT_FOUND),
        ([("p0", "")], Reason.FIELD_REQUIRED),
        ([("p0", "p1")] * 1001, Reason.FIELD_INVALID),
    ],
    ids=["no pair", "same image twice", "missing image", "one image", "too many pairs"],
)
def test_invalid_pairs_are_refused(
    gateway: Stub, stocked: str, pairs: list[tuple[str, str]], reason: Reason
) -> None:
    request = search_pb2.RejectPairsRequest(
        parent=stocked,
        pairs=[
            search_pb2.ImagePair(name_a=f"{stocked}/images/{a}", name_b=f"{stocked}/images/{b}")
            for a, b in pairs
        ],
    )
    error = refused(gateway.RejectPairs, request)
    assert error.reason is reason
    if reason is Reason.IMAGE_NOT_FOUND:
        assert error.metadata["image"] == f"{stocked}/images/gone"


def test_pairs_of_other_libraries_are_refused(gateway: Stub, stocked: str) -> None:
    request = search_pb2.RejectPairsRequest(
        parent=stocked,
        pairs=[search_pb2.ImagePair(name_a=f"{stocked}/images/p0", name_b="libraries/x/images/p1")],
    )
    error = refused(gateway.RejectPairs, request)
    assert error.reason is Reason.FIELD_INVALID
    assert error.fields[0].field == "pairs[0].name_b"


def test_cancellation_ends_the_scan(gateways: Gateways, stocked: str) -> None:
    gateway = gateways.start()
    call = gateway.FindDuplicates(search_pb2.FindDuplicatesRequest(parent=stocked))
    next(iter(call))
    call.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert groups(find(gateway, stocked)) == COPIES
