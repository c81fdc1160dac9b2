"""Following a stream of repeats, and taking it up where it broke off."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from grpc_status import rpc_status

from imagesearch.cli.app import main
from imagesearch.client import AsyncClient, Client, ImageSearchError, _resumption
from imagesearch.gateway.v1 import image_search_service_pb2_grpc as service
from imagesearch.gateway.v1.image_pb2 import GetThumbnailRequest, GetThumbnailResponse, Image
from imagesearch.gateway.v1.search_pb2 import (
    KEEP_POLICY_OLDEST,
    DuplicateGroup,
    DuplicateImage,
    FindDuplicatesRequest,
    FindDuplicatesResponse,
    RejectPairsRequest,
    RejectPairsResponse,
)
from tests.pictures import encoded, photo
from tests.unit.client.conftest import status

PARENT = "libraries/shop"


def message(number: int, *names: str, last: bool = False) -> FindDuplicatesResponse:
    members = [
        DuplicateImage(
            image=Image(
                name=f"{PARENT}/images/{name}", image_id=name, info={"width": 4, "height": 3}
            ),
            score=1 - place / 10,
            pixels_agree=place == 1,
        )
        for place, name in enumerate(names)
    ]
    return FindDuplicatesResponse(
        group=DuplicateGroup(images=members) if members else None,
        checked_count=number,
        total_count=4,
        next_page_token="" if last else f"t{number}",
    )


MESSAGES = [message(1, "a", "b"), message(2), message(3, "c", "d", "e"), message(4, last=True)]


class Repeats(service.ImageSearchServiceServicer):
    """Gives the messages after a token; calls break off as a test lined it up."""

    def __init__(self) -> None:
        self.target = ""
        self.breaks: list[tuple[int, grpc.StatusCode]] = []
        """Of each call in turn: after how many messages, and with which code."""
        self.requests: list[Any] = []

    def FindDuplicates(  # noqa: N802
        self, request: FindDuplicatesRequest, context: grpc.ServicerContext
    ) -> Iterator[FindDuplicatesResponse]:
        self.requests.append(request)
        left = MESSAGES[int(request.page_token[1:] or 0) :]
        if not self.breaks:
            yield from left
            return
        count, code = self.breaks.pop(0)
        yield from left[:count]
        context.abort(code, "broken off")

    def RejectPairs(  # noqa: N802
        self,
        request: RejectPairsRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> RejectPairsResponse:
        self.requests.append(request)
        return RejectPairsResponse(added_count=len(request.pairs))

    def GetThumbnail(  # noqa: N802
        self, request: GetThumbnailRequest, context: grpc.ServicerContext
    ) -> GetThumbnailResponse:
        if request.name.endswith("/b"):
            missing = status(grpc.StatusCode.NOT_FOUND, "none", "THUMBNAIL_NOT_FOUND")
            context.abort_with_status(rpc_status.to_status(missing))
        return GetThumbnailResponse(content=encoded(photo(1, (64, 48))))


@pytest.fixture
def repeats(monkeypatch: pytest.MonkeyPatch) -> Iterator[Repeats]:
    monkeypatch.setattr(_resumption, "FIRST_DELAY_S", 0.001)
    servicer = Repeats()
    with ThreadPoolExecutor() as pool:
        server = grpc.server(pool)
        service.add_ImageSearchServiceServicer_to_server(servicer, server)
        servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield servicer
        server.stop(None).wait()


def run(repeats: Repeats, *arguments: str | Path) -> Result:
    words = ["--target", repeats.target, *map(str, arguments)]
    return CliRunner().invoke(main, words)


def test_messages_come_in_order(repeats: Repeats) -> None:
    with Client(repeats.target) as client:
        found = client.find_duplicates(parent=PARENT, min_score=0.5, keep=KEEP_POLICY_OLDEST)
        assert list(found) == MESSAGES
    (request,) = repeats.requests
    assert (request.parent, request.min_score, request.keep) == (PARENT, 0.5, KEEP_POLICY_OLDEST)
    assert not request.HasField("max_false_positive_rate")


BREAKS = [
    (1, grpc.StatusCode.UNAVAILABLE),
    (1, grpc.StatusCode.DEADLINE_EXCEEDED),
    (1, grpc.StatusCode.RESOURCE_EXHAUSTED),
]


def test_a_stream_that_breaks_off_is_taken_up(repeats: Repeats) -> None:
    repeats.breaks = list(BREAKS)
    with Client(repeats.target) as client:
        assert list(client.find_duplicates(parent=PARENT)) == MESSAGES
    assert [request.page_token for request in repeats.requests] == ["", "t1", "t2", "t3"]


async def test_the_asynchronous_client_takes_it_up_too(repeats: Repeats) -> None:
    repeats.breaks = list(BREAKS)
    async with AsyncClient(repeats.target) as client:
        found = [message async for message in client.find_duplicates(parent=PARENT)]
    assert found == MESSAGES


def test_a_stream_that_comes_no_further_fails(repeats: Repeats) -> None:
    repeats.breaks = [(1, grpc.StatusCode.UNAVAILABLE)] + [(0, grpc.StatusCode.UNAVAILABLE)] * 99
    received: list[FindDuplicatesResponse] = []
    with Client(repeats.target) as client, pytest.raises(ImageSearchError) as caught:
        received.extend(client.find_duplicates(parent=PARENT))
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_deadline_without_any_message_fails_at_once(repeats: Repeats) -> None:
    repeats.breaks = [(0, grpc.StatusCode.DEADLINE_EXCEEDED)] * 9
    with Client(repeats.target) as client, pytest.raises(ImageSearchError):
        list(client.find_duplicates(parent=PARENT))
    assert len(repeats.requests) == 1


def test_other_errors_are_not_tried_again(repeats: Repeats) -> None:
    repeats.breaks = [(1, grpc.StatusCode.ABORTED)]
    with Client(repeats.target) as client, pytest.raises(ImageSearchError) as caught:
        list(client.find_duplicates(parent=PARENT))
    assert caught.value.code is grpc.StatusCode.ABORTED


def test_people_get_groups_as_text(repeats: Repeats) -> None:
    result = run(repeats, "duplicates", "shop", "--keep", "oldest")
    assert result.exit_code == 0, result.output
    assert "keep   4x3  a\n0.900  4x3  b\n" in result.stdout
    assert "0.800  4x3  e  (by its score alone)" in result.stdout
    assert "2 groups, 3 images beside those to keep, among 4 images." in result.stdout
    assert repeats.requests[0].keep == KEEP_POLICY_OLDEST


def test_programs_get_every_message(repeats: Repeats) -> None:
    result = run(repeats, "duplicates", "shop", "--json", "--page-token", "t2")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["nextPageToken"] for line in lines] == ["t3", ""]
    assert [one["image"]["imageId"] for one in lines[0]["group"]["images"]] == ["c", "d", "e"]


def test_a_page_shows_every_group_with_what_small_pictures_there_are(
    repeats: Repeats, tmp_path: Path
) -> None:
    file = tmp_path / "repeats.html"
    result = run(repeats, "duplicates", "shop", "--html", file)
    assert result.exit_code == 0, result.output
    page = file.read_text()
    assert page.count("<article") == 2
    assert page.count("data:image/jpeg;base64,") == 4
    assert page.count("no picture kept") == 1
    assert page.count(">keep</span>") == 2
    assert "2 groups in 4 images, 3 repeats" in page


def test_all_pairs_of_the_images_are_rejected(repeats: Repeats) -> None:
    result = run(repeats, "reject", "shop", "a", "b", "c")
    assert "3 pairs rejected" in result.stdout
    (request,) = repeats.requests
    assert request.request_id
    pairs = [(pair.name_a[-1], pair.name_b[-1]) for pair in request.pairs]
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c")]


@pytest.mark.parametrize("ids", [["a"], ["a", "a"], ["a", "b", "a"]])
def test_fewer_than_two_different_images_are_no_pair(repeats: Repeats, ids: list[str]) -> None:
    result = run(repeats, "reject", "shop", *ids)
    assert result.exit_code == 2
    assert not repeats.requests
