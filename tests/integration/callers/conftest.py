"""Fixture: a server that runs like every service, with small limits, on a real port."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from imagesearch.gateway.v1 import image_pb2, image_search_service_pb2_grpc, library_pb2, search_pb2
from imagesearch_services.common.env import Env
from imagesearch_services.common.server import ServerSettings, Service, start
from imagesearch_services.gateway.access import require_token
from tests.ports import free_port

SERVICE = "imagesearch.gateway.v1.ImageSearchService"
PAGE_BYTES = 2_000_000
LIMITS = {
    "READ_TIMEOUT_S": "0.5",
    "WRITE_TIMEOUT_S": "0.5",
    "MIN_BYTES_PER_S": "10000000",
    "MAX_BUFFERED_BYTES": "40000000",
    "MAX_OPEN_CALLS": "20",
    "MAX_STREAMS_PER_CONNECTION": "30",
    "MAX_CONNECTIONS": "60",
    "HANDSHAKE_TIMEOUT_S": "1",
}


class Answers(image_search_service_pb2_grpc.ImageSearchServiceServicer):
    """Answers with messages of a fixed size."""

    async def GetLibrary(  # noqa: N802
        self, request: library_pb2.GetLibraryRequest, _context: object
    ) -> library_pb2.Library:
        return library_pb2.Library(name=request.name)

    async def AddImage(  # noqa: N802
        self, request: image_pb2.AddImageRequest, _context: object
    ) -> image_pb2.Image:
        return image_pb2.Image(image_id=request.image_id)

    async def ListImages(  # noqa: N802
        self, _request: image_pb2.ListImagesRequest, _context: object
    ) -> image_pb2.ListImagesResponse:
        return image_pb2.ListImagesResponse(next_page_token="x" * PAGE_BYTES)

    async def FindDuplicates(  # noqa: N802
        self, _request: search_pb2.FindDuplicatesRequest, _context: object
    ) -> AsyncIterator[search_pb2.FindDuplicatesResponse]:
        for _ in range(10):
            yield search_pb2.FindDuplicatesResponse(next_page_token="x" * PAGE_BYTES)


@contextmanager
def serving(**limits: str) -> Iterator[str]:
    """Run the server with limits. Callers need the token "one" or "two". Yields its address."""
    variables = {f"TEST_{name}": value for name, value in (LIMITS | limits).items()}
    settings = ServerSettings.from_env(
        Env("TEST_", variables),
        port=free_port(),
        metrics_port=0,
        max_message_bytes=32 << 20,
        caller_share=0.5,
    )

    async def nothing() -> None:
        """Check and close nothing."""

    service = Service(
        name="gateway",
        descriptor_names=[SERVICE],
        register=lambda server: (
            image_search_service_pb2_grpc.add_ImageSearchServiceServicer_to_server(
                Answers(),  # type: ignore[abstract]  # the rest is never called
                server,
            )
        ),
        settings=settings,
        check=nothing,
        close=nothing,
        authorize=require_token(["one", "two"]),
        max_request_bytes={f"/{SERVICE}/GetLibrary": 64 * 1024},
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work(), loop).result(timeout=30)

    try:
        running = run(lambda: start(service))
        yield f"127.0.0.1:{settings.port}"
        run(running.stop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="session")
def target() -> Iterator[str]:
    """Address of a server that all tests share."""
    with serving() as address:
        yield address
