"""Streams of duplicates: resumption, and the commands `duplicates` and `reject`."""

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


class FakeGateway(service.ImageSearchServiceServicer):
    """Streams the messages after the page token, and breaks streams as scripted."""

    def __init__(self) -> None:
        self.target = ""
        self.breaks: list[tuple[int, grpc.StatusCode]] = []
        """For each call, the number of messages before an error, and the status code."""
        self.requests: list[Any] = []

    def FindDuplicates(  # noqa: N802
        self, request: FindDuplicatesRequest, context: grpc.ServicerContext
    ) -> Iterator[FindDuplicatesResponse]:
        self.requests.append(request)
        remaining = MESSAGES[int(request.page_token[1:] or 0) :]
        if not self.breaks:
            yield from remaining
            return
        count, code = self.breaks.pop(0)
        yield from remaining[:count]
        context.abort(code, "broken")

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
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGateway]:
    monkeypatch.setattr(_resumption, "FIRST_DELAY_S", 0.001)
    servicer = FakeGateway()
    with ThreadPoolExecutor() as pool:
        server = grpc.server(pool)
        service.add_ImageSearchServiceServicer_to_server(servicer, server)
        servicer.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield servicer
        server.stop(None).wait()


def run(gateway: FakeGateway, *arguments: str | Path) -> Result:
    words = ["--target", gateway.target, *map(str, arguments)]
    return CliRunner().invoke(main, words)


def test_messages_are_received_in_order(gateway: FakeGateway) -> None:
    with Client(gateway.target) as client:
        found = client.find_duplicates(parent=PARENT, min_score=0.5, keep=KEEP_POLICY_OLDEST)
        assert list(found) == MESSAGES
    (request,) = gateway.requests
    assert (request.parent, request.min_score, request.keep) == (PARENT, 0.5, KEEP_POLICY_OLDEST)
    assert not request.HasField("max_false_positive_rate")


BREAKS = [
    (1, grpc.StatusCode.UNAVAILABLE),
    (1, grpc.StatusCode.DEADLINE_EXCEEDED),
    (1, grpc.StatusCode.RESOURCE_EXHAUSTED),
]


def test_a_broken_stream_resumes(gateway: FakeGateway) -> None:
    gateway.breaks = list(BREAKS)
    with Client(gateway.target) as client:
        assert list(client.find_duplicates(parent=PARENT)) == MESSAGES
    assert [request.page_token for request in gateway.requests] == ["", "t1", "t2", "t3"]


async def test_a_broken_stream_of_the_async_client_resumes(gateway: FakeGateway) -> None:
    gateway.breaks = list(BREAKS)
    async with AsyncClient(gateway.target) as client:
        found = [message async for message in client.find_duplicates(parent=PARENT)]
    assert found == MESSAGES


def test_a_stream_without_progress_fails(gateway: FakeGateway) -> None:
    gateway.breaks = [(1, grpc.StatusCode.UNAVAILABLE)] + [(0, grpc.StatusCode.UNAVAILABLE)] * 99
    received: list[FindDuplicatesResponse] = []
    with Client(gateway.target) as client, pytest.raises(ImageSearchError) as caught:
        received.extend(client.find_duplicates(parent=PARENT))
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_deadline_before_the_first_message_fails_without_a_retry(gateway: FakeGateway) -> None:
    gateway.breaks = [(0, grpc.StatusCode.DEADLINE_EXCEEDED)] * 9
    with Client(gateway.target) as client, pytest.raises(ImageSearchError):
        list(client.find_duplicates(parent=PARENT))
    assert len(gateway.requests) == 1


def test_other_errors_are_not_retried(gateway: FakeGateway) -> None:
    gateway.breaks = [(1, grpc.StatusCode.ABORTED)]
    with Client(gateway.target) as client, pytest.raises(ImageSearchError) as caught:
        list(client.find_duplicates(parent=PARENT))
    assert caught.value.code is grpc.StatusCode.ABORTED


def test_groups_are_printed_as_text(gateway: FakeGateway) -> None:
    result = run(gateway, "duplicates", "shop", "--keep", "oldest")
    assert result.exit_code == 0, result.output
    assert "keep   4x3  a\n0.900  4x3  b\n" in result.stdout
    assert "0.800  4x3  e  (pixels not compared)" in result.stdout
    assert "2 groups, 3 duplicates in 4 images." in result.stdout
    assert gateway.requests[0].keep == KEEP_POLICY_OLDEST


def test_json_has_a_line_per_message(gateway: FakeGateway) -> None:
    result = run(gateway, "duplicates", "shop", "--json", "--page-token", "t2")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["nextPageToken"] for line in lines] == ["t3", ""]
    assert [member["image"]["imageId"] for member in lines[0]["group"]["images"]] == ["c", "d", "e"]


def test_a_page_shows_all_groups_with_the_stored_thumbnails(
    gateway: FakeGateway, tmp_path: Path
) -> None:
    file = tmp_path / "duplicates.html"
    result = run(gateway, "duplicates", "shop", "--html", file)
    assert result.exit_code == 0, result.output
    page = file.read_text()
    assert page.count("<article") == 2
    assert page.count("data:image/jpeg;base64,") == 4
    assert page.count("no picture available") == 1
    assert page.count(">keep</span>") == 2
    assert "2 groups in 4 images, 3 duplicates" in page


def test_all_pairs_of_the_images_are_rejected(gateway: FakeGateway) -> None:
    result = run(gateway, "reject", "shop", "a", "b", "c")
    assert "3 new pairs rejected" in result.stdout
    (request,) = gateway.requests
    assert request.request_id
    pairs = [(pair.name_a[-1], pair.name_b[-1]) for pair in request.pairs]
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c")]


@pytest.mark.parametrize("ids", [["a"], ["a", "a"], ["a", "b", "a"]])
def test_fewer_than_two_or_repeated_images_are_a_usage_error(
    gateway: FakeGateway, ids: list[str]
) -> None:
    result = run(gateway, "reject", "shop", *ids)
    assert result.exit_code == 2
    assert not gateway.requests
