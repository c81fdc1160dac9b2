"""Repeats within a library, through the real Embedding, Triton and Catalog."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import grpc
import pytest
from PIL import Image, ImageEnhance, ImageOps

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


def find(gateway: Stub, parent: str, **fields: Any) -> list[search_pb2.FindDuplicatesResponse]:
    request = search_pb2.FindDuplicatesRequest(parent=parent, **fields)
    return list(gateway.FindDuplicates(request, timeout=60))


def groups(messages: Iterable[search_pb2.FindDuplicatesResponse]) -> Groups:
    return sorted(
        sorted(member.image.image_id for member in message.group.images)
        for message in messages
        if message.HasField("group")
    )


def kept(messages: Iterable[search_pb2.FindDuplicatesResponse]) -> list[str]:
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
    """A library of photographs and edits of three of them; leave it as it is."""
    with temporary_library(gateway) as name:
        add(gateway, name, PICTURES)
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
