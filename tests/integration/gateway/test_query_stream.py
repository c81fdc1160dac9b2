"""The Gateway's client of EmbedQuery against a scripted Embedding service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.embedding.v1 import embedding_service_pb2_grpc as pb_grpc
from imagesearch_services.common.channels import connect
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.interceptor import CallInterceptor
from imagesearch_services.gateway.clients.embedding import SERVICE, EmbeddingClient

SPACES = ("copies@1",)
PICTURE = b"picture"
TIMEOUT_S = 10


@dataclass
class ScriptedEmbedding(pb_grpc.EmbeddingServiceServicer):
    """Records requests by stream; fails the requests of `failures`, by stream and step."""

    failures: dict[tuple[int, int], ServiceError | grpc.StatusCode] = field(default_factory=dict)
    streams: list[list[pb.EmbedQueryRequest]] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def EmbedQuery(  # noqa: N802  # the name of the RPC
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[pb.EmbedQueryResponse]:
        requests: list[pb.EmbedQueryRequest] = []
        self.streams.append(requests)
        row = len(self.streams) - 1
        try:
            async for request in request_iterator:
                requests.append(request)
                failure = self.failures.get((row, len(requests) - 1))
                if isinstance(failure, ServiceError):
                    raise failure
                if failure is not None:
                    await context.abort(failure)
                yield pb.EmbedQueryResponse()
        finally:
            self.ended.set()


@asynccontextmanager
async def connected(service: ScriptedEmbedding) -> AsyncIterator[EmbeddingClient]:
    server = grpc.aio.server(interceptors=[CallInterceptor()])
    pb_grpc.add_EmbeddingServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with connect(f"127.0.0.1:{port}", SERVICE) as channel:
            yield EmbeddingClient(channel, timeout_s=TIMEOUT_S)
    finally:
        await server.stop(None)


def contents(service: ScriptedEmbedding) -> list[list[bytes]]:
    return [[request.image.content for request in stream] for stream in service.streams]


async def test_the_picture_is_sent_once_and_the_stream_is_closed() -> None:
    service = ScriptedEmbedding()
    async with connected(service) as client:
        async with client.open_query(PICTURE) as query:
            await query.embed(SPACES)
            await query.embed(SPACES, max_proposed_regions=24)
        async with asyncio.timeout(TIMEOUT_S):
            await service.ended.wait()
    assert contents(service) == [[PICTURE, b""]]
    assert [request.max_proposed_regions for request in service.streams[0]] == [0, 24]


async def test_a_query_without_a_step_opens_no_stream() -> None:
    service = ScriptedEmbedding()
    async with connected(service) as client, client.open_query(PICTURE):
        pass
    assert service.streams == []


async def test_a_connection_that_breaks_between_the_steps_is_replaced() -> None:
    service = ScriptedEmbedding({(0, 1): grpc.StatusCode.UNAVAILABLE})
    async with connected(service) as client, client.open_query(PICTURE) as query:
        await query.embed(SPACES)
        await query.embed(SPACES, max_proposed_regions=24)
    assert contents(service) == [[PICTURE, b""], [PICTURE]]
    assert service.streams[1][0].max_proposed_regions == 24


@pytest.mark.parametrize("step", [0, 1])
async def test_an_error_of_embedding_is_raised(step: int) -> None:
    service = ScriptedEmbedding({(0, step): ServiceError(Reason.IMAGE_TRUNCATED, "short")})
    async with connected(service) as client, client.open_query(PICTURE) as query:
        for _ in range(step):
            await query.embed(SPACES)
        with pytest.raises(ServiceError, match="short") as caught:
            await query.embed(SPACES)
    assert caught.value.reason is Reason.IMAGE_TRUNCATED
    assert len(service.streams) == 1


async def fail_after_a_step(client: EmbeddingClient) -> None:
    async with client.open_query(PICTURE) as query:
        await query.embed(SPACES)
        raise KeyError


async def test_an_error_of_the_caller_ends_the_stream() -> None:
    service = ScriptedEmbedding()
    async with connected(service) as client:
        with pytest.raises(KeyError):
            await fail_after_a_step(client)
        async with asyncio.timeout(TIMEOUT_S):
            await service.ended.wait()


async def test_an_unreachable_service_is_embedding_unavailable() -> None:
    async with (
        connect("127.0.0.1:9", SERVICE) as channel,
        EmbeddingClient(channel, timeout_s=TIMEOUT_S).open_query(PICTURE) as query,
    ):
        with pytest.raises(ServiceError) as caught:
            await query.embed(SPACES)
    assert caught.value.reason is Reason.EMBEDDING_UNAVAILABLE
