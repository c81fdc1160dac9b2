"""Services fail and restart; callers get precise errors and no acknowledged image is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import grpc.aio
import pytest

from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.gateway.v1 import image_search_service_pb2_grpc as service
from imagesearch.type.v1 import picture_pb2
from imagesearch_services.common.errors import Reason
from imagesearch_services.runner.suite import Suite
from tests.e2e.conftest import Stub, open_channel, temporary_library
from tests.e2e.errors import described, refused
from tests.faults.health import engine_pid
from tests.pictures import encoded, photo, png_header
from tests.waiting import eventually

AT_ONCE_S = 5.0
"""Deadline of calls that must fail before it, with another error; seconds."""


@pytest.fixture(scope="module")
def calls(fragile_suite: Suite) -> Iterator[Stub]:
    with open_channel(fragile_suite.target) as channel:
        yield service.ImageSearchServiceStub(channel)


@pytest.fixture
def stocked(calls: Stub) -> Iterator[str]:
    for name in temporary_library(calls):
        calls.AddImage(add(name, 1))
        yield name


def add(library: str, seed: int) -> image_pb2.AddImageRequest:
    return image_pb2.AddImageRequest(
        parent=library,
        image_id=f"photo-{seed}",
        image=picture_pb2.ImageContent(content=encoded(photo(seed))),
        request_id=f"{library}-{seed}",
    )


def query(library: str, seed: int) -> search_pb2.SearchImagesRequest:
    return search_pb2.SearchImagesRequest(
        parent=library, image=picture_pb2.ImageContent(content=encoded(photo(seed)))
    )


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("triton", Reason.MODEL_SERVER_UNAVAILABLE),
        ("embedding", Reason.EMBEDDING_UNAVAILABLE),
        ("catalog", Reason.CATALOG_UNAVAILABLE),
    ],
)
def test_a_killed_service_is_named_at_once_and_used_again_after_its_restart(
    fragile_suite: Suite, calls: Stub, stocked: str, part: str, reason: Reason
) -> None:
    fragile_suite.processes[part].kill()
    error = refused(calls.SearchImages, query(stocked, 1), timeout=AT_ONCE_S)
    assert error.reason is reason
    assert error.retry_after_s is not None
    assert refused(calls.AddImage, add(stocked, 2), timeout=AT_ONCE_S).reason is reason

    fragile_suite.launch(part)
    for name in fragile_suite.ORDER:
        fragile_suite.wait_serving(name)
    # The channels between the services reconnect within a second.
    eventually(lambda: calls.SearchImages(query(stocked, 1), timeout=30))
    found = calls.SearchImages(query(stocked, 1), timeout=30)
    assert found.matches[0].image.image_id == "photo-1"
    assert calls.AddImage(add(stocked, 2), timeout=30).image_id == "photo-2"


@pytest.mark.parametrize("part", ["engine", "catalog", "embedding", "triton"])
def test_a_stopped_process_is_told_by_health_and_used_again_when_it_continues(
    fragile_suite: Suite, calls: Stub, stocked: str, part: str
) -> None:
    """A stopped process keeps its connections and answers nothing."""
    reason = {
        "engine": Reason.STORAGE_UNAVAILABLE,
        "catalog": Reason.CATALOG_UNAVAILABLE,
        "embedding": Reason.EMBEDDING_UNAVAILABLE,
    }.get(part)
    pid = engine_pid(fragile_suite) if part == "engine" else fragile_suite.processes[part].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        # The call is sent before anybody knows.
        if reason is not None:
            error = refused(calls.SearchImages, query(stocked, 1), timeout=30)
            assert error.reason is reason
        deadline_s = time.monotonic() + 30
        while fragile_suite.is_serving("gateway"):
            assert time.monotonic() < deadline_s, "the Gateway still reports SERVING"
    finally:
        os.kill(pid, signal.SIGCONT)
    for name in fragile_suite.ORDER:
        fragile_suite.wait_serving(name)
    eventually(lambda: calls.SearchImages(query(stocked, 1), timeout=30))
    assert calls.AddImage(add(stocked, 2), timeout=30).image_id == "photo-2"


def test_health_reports_a_missing_dependency(fragile_suite: Suite) -> None:
    fragile_suite.processes["triton"].kill()
    deadline_s = time.monotonic() + 30
    while fragile_suite.is_serving("gateway"):
        assert time.monotonic() < deadline_s, "the Gateway still reports SERVING"
    fragile_suite.launch("triton")
    for name in fragile_suite.ORDER:
        fragile_suite.wait_serving(name)


def test_a_kill_during_an_import_loses_no_acknowledged_picture(
    fragile_suite: Suite, calls: Stub, stocked: str
) -> None:
    acknowledged: list[str] = []
    enough = threading.Event()

    def import_pictures() -> None:
        for seed in range(100, 1000):
            try:
                acknowledged.append(calls.AddImage(add(stocked, seed), timeout=30).image_id)
            except grpc.RpcError:
                return
            if len(acknowledged) == 25:
                enough.set()

    importer = threading.Thread(target=import_pictures)
    importer.start()
    assert enough.wait(60)
    fragile_suite.processes["catalog"].kill()
    importer.join(60)
    fragile_suite.launch("catalog")
    for name in fragile_suite.ORDER:
        fragile_suite.wait_serving(name)
    eventually(lambda: calls.GetLibrary(library_pb2.GetLibraryRequest(name=stocked)))

    assert len(acknowledged) >= 25
    for image_id in acknowledged:
        image = calls.GetImage(image_pb2.GetImageRequest(name=f"{stocked}/images/{image_id}"))
        assert image.image_id == image_id
    last = int(acknowledged[-1].removeprefix("photo-"))
    assert calls.SearchImages(query(stocked, last)).matches[0].image.image_id == acknowledged[-1]


def test_a_retry_after_a_deadline_is_safe(calls: Stub, stocked: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        calls.AddImage(add(stocked, 50), timeout=0.001)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    # Whether the image was stored is unknown; the request id makes the retry safe either way.
    assert calls.AddImage(add(stocked, 50)).image_id == "photo-50"
    assert calls.AddImage(add(stocked, 50)).image_id == "photo-50"
    assert calls.GetLibrary(library_pb2.GetLibraryRequest(name=stocked)).image_count == 2


async def test_huge_pictures_are_admitted_by_budget(fragile_suite: Suite, stocked: str) -> None:
    """Of 200 concurrent pictures of 50 megapixels some are served, the others get OVERLOADED."""
    picture = picture_pb2.ImageContent(content=encoded(photo(7).resize((8192, 6100)), "JPEG"))
    request = search_pb2.SearchImagesRequest(parent=stocked, image=picture)
    outcomes: Counter[str] = Counter()

    async with grpc.aio.insecure_channel(fragile_suite.target) as channel:
        stub = service.ImageSearchServiceStub(channel)

        async def ask() -> None:
            try:
                await stub.SearchImages(request, timeout=120)
            except grpc.aio.AioRpcError as error:
                refusal = described(error)
                assert refusal.reason is Reason.OVERLOADED
                assert refusal.retry_after_s
                outcomes["refused"] += 1
            else:
                outcomes["served"] += 1

        await asyncio.gather(*(ask() for _ in range(200)))
        assert outcomes["served"] >= 1
        assert outcomes["refused"] >= 1
        assert outcomes.total() == 200
        # The budget was released and every service is still running.
        await stub.SearchImages(request, timeout=120)
    assert fragile_suite.is_alive()


def test_decompression_bombs_are_refused_before_decoding(calls: Stub, stocked: str) -> None:
    bomb = search_pb2.SearchImagesRequest(
        parent=stocked, image=picture_pb2.ImageContent(content=png_header(100_000, 100_000))
    )
    for _ in range(50):
        error = refused(calls.SearchImages, bomb, timeout=AT_ONCE_S)
        assert error.reason is Reason.IMAGE_TOO_LARGE
