"""Envoy in front of two servers that run like every service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from imagesearch.gateway.v1 import image_search_service_pb2_grpc as gateway_grpc
from imagesearch.gateway.v1 import library_pb2
from imagesearch_services.common.context import time_remaining_s
from imagesearch_services.common.env import Env
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.server import ServerSettings, Service, start
from tests.envoy_proxy import EnvoyProxy, running_envoy, wait_until
from tests.ports import free_port

NAME = "imagesearch.gateway.v1.ImageSearchService"


class Upstream(gateway_grpc.ImageSearchServiceServicer):
    """Server of the Gateway's gRPC service that fails on demand."""

    def __init__(self) -> None:
        self.port = free_port()
        self.is_healthy = True
        self.is_available = True
        self.calls = 0

    async def GetLibrary(  # noqa: N802
        self, _request: library_pb2.GetLibraryRequest, _context: object
    ) -> library_pb2.Library:
        return self.answer()

    async def CreateLibrary(  # noqa: N802
        self, _request: library_pb2.CreateLibraryRequest, _context: object
    ) -> library_pb2.Library:
        return self.answer()

    def answer(self) -> library_pb2.Library:
        """Return the name of this server and the remaining time of the call."""
        self.calls += 1
        if not self.is_available:
            raise ServiceError(Reason.CATALOG_UNAVAILABLE, "the Catalog does not answer")
        return library_pb2.Library(
            name=str(self.port), display_name=f"{time_remaining_s(default=1e6):.0f}"
        )

    async def check(self) -> None:
        if not self.is_healthy:
            raise ConnectionError

    async def close(self) -> None:
        """Do nothing: there are no resources to release."""


@contextlib.asynccontextmanager
async def serving(upstream: Upstream) -> AsyncIterator[Upstream]:
    service = Service(
        name="gateway",
        descriptor_names=[NAME],
        register=lambda server: gateway_grpc.add_ImageSearchServiceServicer_to_server(
            upstream, server
        ),
        settings=ServerSettings.from_env(
            Env("UPSTREAM_", {"UPSTREAM_CHECK_INTERVAL_S": "0.05"}),
            port=upstream.port, metrics_port=0, max_message_bytes=1_000_000,
        ),
        check=upstream.check,
        close=upstream.close,
    )  # fmt: skip
    running = await start(service)
    try:
        yield upstream
    finally:
        await running.stop()


@pytest.fixture
async def upstreams() -> AsyncIterator[tuple[Upstream, Upstream]]:
    upstreams = Upstream(), Upstream()  # type: ignore[abstract]  # the rest is never called
    async with serving(upstreams[0]) as first, serving(upstreams[1]) as second:
        yield first, second


@pytest.fixture
async def envoy(upstreams: tuple[Upstream, Upstream], tmp_path: Path) -> AsyncIterator[EnvoyProxy]:
    proxy = running_envoy([f"127.0.0.1:{upstream.port}" for upstream in upstreams], tmp_path)
    entered = await asyncio.to_thread(proxy.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(proxy.__exit__, None, None, None)


@pytest.fixture
async def channel(envoy: EnvoyProxy) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(envoy.target) as opened:
        yield opened


@pytest.fixture
def gateway(channel: grpc.aio.Channel) -> gateway_grpc.ImageSearchServiceAsyncStub:
    return gateway_grpc.ImageSearchServiceStub(channel)


async def wait_until_healthy(envoy: EnvoyProxy, *upstreams: Upstream) -> None:
    ports = {upstream.port for upstream in upstreams}
    await asyncio.to_thread(wait_until, lambda: envoy.healthy() == ports)


async def test_calls_of_one_connection_are_balanced_over_all_gateways(
    gateway: gateway_grpc.ImageSearchServiceAsyncStub, upstreams: tuple[Upstream, Upstream]
) -> None:
    for _ in range(10):
        await gateway.GetLibrary(library_pb2.GetLibraryRequest())
    assert [upstream.calls for upstream in upstreams] == [5, 5]


async def test_an_unhealthy_gateway_gets_no_calls_until_it_recovers(
    gateway: gateway_grpc.ImageSearchServiceAsyncStub,
    upstreams: tuple[Upstream, Upstream],
    envoy: EnvoyProxy,
) -> None:
    first, second = upstreams
    first.is_healthy = False
    await wait_until_healthy(envoy, second)
    for _ in range(4):
        await gateway.GetLibrary(library_pb2.GetLibraryRequest())
    assert (first.calls, second.calls) == (0, 4)
    first.is_healthy = True
    await wait_until_healthy(envoy, first, second)
    for _ in range(4):
        await gateway.GetLibrary(library_pb2.GetLibraryRequest())
    assert (first.calls, second.calls) == (2, 6)


async def test_calls_are_unavailable_without_a_healthy_gateway(
    channel: grpc.aio.Channel, upstreams: tuple[Upstream, Upstream], envoy: EnvoyProxy
) -> None:
    for upstream in upstreams:
        upstream.is_healthy = False
    await wait_until_healthy(envoy)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_failed_read_is_retried_on_another_gateway(
    gateway: gateway_grpc.ImageSearchServiceAsyncStub,
    upstreams: tuple[Upstream, Upstream],
    envoy: EnvoyProxy,
) -> None:
    first, second = upstreams
    first.is_available = False
    names = {(await gateway.GetLibrary(library_pb2.GetLibraryRequest())).name for _ in range(6)}
    assert names == {str(second.port)}
    assert first.calls > 0
    assert envoy.counter("upstream_rq_retry") == first.calls


async def test_a_write_that_reached_a_gateway_is_not_retried(
    gateway: gateway_grpc.ImageSearchServiceAsyncStub, upstreams: tuple[Upstream, Upstream]
) -> None:
    for upstream in upstreams:
        upstream.is_available = False
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.CreateLibrary(library_pb2.CreateLibraryRequest())
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert sum(upstream.calls for upstream in upstreams) == 1


async def test_envoy_passes_on_error_details(
    gateway: gateway_grpc.ImageSearchServiceAsyncStub, upstreams: tuple[Upstream, Upstream]
) -> None:
    for upstream in upstreams:
        upstream.is_available = False
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await gateway.CreateLibrary(library_pb2.CreateLibraryRequest())
    trailers = dict(raised.value.trailing_metadata())
    assert b"CATALOG_UNAVAILABLE" in trailers["grpc-status-details-bin"]


async def test_the_callers_deadline_reaches_the_gateway(
    gateway: gateway_grpc.ImageSearchServiceAsyncStub,
) -> None:
    answer = await gateway.GetLibrary(library_pb2.GetLibraryRequest(), timeout=7)
    assert 5 <= int(answer.display_name) <= 7


async def test_many_or_large_headers_are_refused(
    gateway: gateway_grpc.ImageSearchServiceAsyncStub, upstreams: tuple[Upstream, Upstream]
) -> None:
    many = [(f"x-{number}", "y") for number in range(100)]
    large = [("x-large", "y" * 20_000)]
    for metadata in (many, large):
        with pytest.raises(grpc.aio.AioRpcError):
            await gateway.GetLibrary(library_pb2.GetLibraryRequest(), metadata=metadata)
    assert sum(upstream.calls for upstream in upstreams) == 0
    await gateway.GetLibrary(library_pb2.GetLibraryRequest())


async def test_a_connection_with_too_many_calls_is_told_when_to_retry(
    upstreams: tuple[Upstream, Upstream], tmp_path: Path
) -> None:
    targets = [f"127.0.0.1:{upstream.port}" for upstream in upstreams]
    proxy = running_envoy(targets, tmp_path, calls_per_connection=5)
    envoy = await asyncio.to_thread(proxy.__enter__)
    try:
        async with grpc.aio.insecure_channel(envoy.target) as channel:
            gateway = gateway_grpc.ImageSearchServiceStub(channel)
            for _ in range(5):
                await gateway.GetLibrary(library_pb2.GetLibraryRequest())
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await gateway.GetLibrary(library_pb2.GetLibraryRequest())
    finally:
        await asyncio.to_thread(proxy.__exit__, None, None, None)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    metadata = [*(raised.value.initial_metadata() or ()), *(raised.value.trailing_metadata() or ())]
    assert ("grpc-retry-pushback-ms", "1000") in metadata
