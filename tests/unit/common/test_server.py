"""Behavior of every server, tested with an echo service."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from imagesearch.catalog.v1 import catalog_service_pb2 as catalog
from imagesearch.catalog.v1 import catalog_service_pb2_grpc as catalog_grpc
from imagesearch_services.common import channels
from imagesearch_services.common.call_bound import CallBound
from imagesearch_services.common.context import request_id, time_remaining_s
from imagesearch_services.common.env import Env
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.interceptor import Admission
from imagesearch_services.common.probe import probe
from imagesearch_services.common.server import (
    LIVENESS,
    RunningServer,
    ServerSettings,
    Service,
    start,
)
from imagesearch_services.common.status import from_rpc_error
from tests.ports import free_port

SERVICE = catalog.DESCRIPTOR.services_by_name["CatalogService"]
NAME = SERVICE.full_name


class Echo(catalog_grpc.CatalogServiceServicer):
    """Returns the context of the call."""

    def __init__(self) -> None:
        self.refused_attempts = 0

    async def GetLibrary(  # noqa: N802
        self, request: catalog.GetLibraryRequest, _context: object
    ) -> catalog.Library:
        if request.library_id == "missing":
            raise ServiceError(Reason.LIBRARY_NOT_FOUND, "no such library")
        if request.library_id == "unavailable":
            self.refused_attempts += 1
            raise ServiceError(Reason.STORAGE_UNAVAILABLE, "not now")
        if request.library_id == "broken":
            raise ZeroDivisionError
        return catalog.Library(
            library_id=request_id(), description=f"{time_remaining_s(default=99):.0f}"
        )


class Dependency:
    """Dependency of the service that can become unhealthy."""

    def __init__(self) -> None:
        self.is_healthy = True
        self.closed = False

    async def check(self) -> None:
        if not self.is_healthy:
            raise ConnectionError

    async def close(self) -> None:
        self.closed = True


@contextlib.asynccontextmanager
async def running(
    dependency: Dependency, admission: Admission | None = None, servicer: Echo | None = None
) -> AsyncIterator[tuple[str, RunningServer]]:
    settings = ServerSettings.from_env(
        Env("ECHO_", {"ECHO_CHECK_INTERVAL_S": "0.05"}),
        port=free_port(),
        metrics_port=0,
        max_message_bytes=1_000_000,
    )
    server = await start(
        Service(
            name="echo",
            descriptor_names=[NAME],
            register=lambda server: catalog_grpc.add_CatalogServiceServicer_to_server(
                servicer or Echo(), server
            ),
            settings=settings,
            check=dependency.check,
            close=dependency.close,
            admission=admission,
        )
    )
    try:
        yield f"127.0.0.1:{settings.port}", server
    finally:
        if not dependency.closed:
            await server.stop()


async def wait_for_health(target: str, expected: int) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        async with asyncio.timeout(10):
            async for answer in stub.Watch(health_pb2.HealthCheckRequest(service=NAME)):
                if answer.status == expected:
                    return


async def ask(target: str, library_id: str) -> catalog.Library:
    async with channels.connect(target, SERVICE) as channel:
        return await channels.call(
            catalog_grpc.CatalogServiceStub(channel).GetLibrary,
            catalog.GetLibraryRequest(library_id=library_id),
            peer=Reason.CATALOG_UNAVAILABLE,
            timeout_s=20,
        )


async def test_health_reflects_the_dependency() -> None:
    dependency = Dependency()
    async with running(dependency) as (target, _):
        await wait_for_health(target, health_pb2.HealthCheckResponse.SERVING)
        dependency.is_healthy = False
        await wait_for_health(target, health_pb2.HealthCheckResponse.NOT_SERVING)
        dependency.is_healthy = True
        await wait_for_health(target, health_pb2.HealthCheckResponse.SERVING)


async def test_request_id_and_deadline_reach_the_servicer() -> None:
    async with running(Dependency()) as (target, _), grpc.aio.insecure_channel(target) as channel:
        answer = await catalog_grpc.CatalogServiceStub(channel).GetLibrary(
            catalog.GetLibraryRequest(), timeout=7, metadata=(("x-request-id", "abc"),)
        )
        assert answer.library_id == "abc"
        assert answer.description in {"6", "7"}


async def test_an_error_keeps_its_reason() -> None:
    async with running(Dependency()) as (target, _):
        with pytest.raises(ServiceError) as caught:
            await ask(target, "missing")
    assert caught.value.reason is Reason.LIBRARY_NOT_FOUND


async def test_an_internal_error_reveals_only_its_request_id() -> None:
    async with running(Dependency()) as (target, _):
        with pytest.raises(ServiceError) as caught:
            await ask(target, "broken")
    assert caught.value.reason is Reason.INTERNAL
    assert "ZeroDivision" not in caught.value.message
    assert caught.value.metadata["request_id"]


async def test_a_call_to_a_stopped_service_is_unavailable() -> None:
    with pytest.raises(ServiceError) as caught:
        await ask(f"127.0.0.1:{free_port()}", "any")
    assert caught.value.reason is Reason.CATALOG_UNAVAILABLE


async def test_a_method_without_an_implementation_is_unimplemented() -> None:
    async with running(Dependency()) as (target, _), grpc.aio.insecure_channel(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await catalog_grpc.CatalogServiceStub(channel).DeleteLibrary(
                catalog.DeleteLibraryRequest()
            )
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_stopping_closes_the_service() -> None:
    dependency = Dependency()
    async with running(dependency) as (_, server):
        await server.stop()
    assert dependency.closed


async def test_calls_are_retried_but_not_while_most_calls_fail() -> None:
    echo, request = Echo(), catalog.GetLibraryRequest(library_id="unavailable")
    async with (
        running(Dependency(), servicer=echo) as (target, _),
        channels.connect(target, SERVICE) as channel,
    ):
        method = catalog_grpc.CatalogServiceStub(channel).GetLibrary

        async def fail() -> None:
            with pytest.raises(grpc.aio.AioRpcError):
                await method(request, timeout=20)

        await fail()
        assert echo.refused_attempts == 4
        await asyncio.gather(*(fail() for _ in range(40)))
        assert 44 <= echo.refused_attempts < 44 + 20, "far fewer than 4 attempts for each call"


async def test_a_call_beyond_the_limit_is_refused_before_its_request_is_sent() -> None:
    bound = CallBound(1)

    async def never_sent() -> AsyncIterator[catalog.GetLibraryRequest]:
        await asyncio.Event().wait()
        yield catalog.GetLibraryRequest()

    async with running(Dependency(), bound) as (target, _):
        await ask(target, "shop")
        with bound.admit("", {}, ""):
            async with grpc.aio.insecure_channel(target) as channel:
                method = channel.stream_unary(
                    f"/{NAME}/GetLibrary",
                    catalog.GetLibraryRequest.SerializeToString,
                    catalog.Library.FromString,
                )
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await method(never_sent(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert from_rpc_error(caught.value, peer=Reason.CATALOG_UNAVAILABLE).retry_after_s
        await ask(target, "shop")


async def test_a_probe_of_any_kind_tells_a_blocked_event_loop() -> None:
    """Liveness too: a restart repairs a blocked server, unlike a missing dependency."""
    dependency = Dependency()
    async with running(dependency) as (target, _):
        await wait_for_health(target, health_pb2.HealthCheckResponse.SERVING)
        answers: dict[str, str] = {}

        def ask_probes() -> None:
            for name in ("", LIVENESS):
                answers[name] = probe(target, name, 0.3)

        prober = threading.Thread(target=ask_probes)
        prober.start()
        prober.join()  # blocks the event loop
        assert answers == {"": "DEADLINE_EXCEEDED", LIVENESS: "DEADLINE_EXCEEDED"}
        dependency.is_healthy = False
        await wait_for_health(target, health_pb2.HealthCheckResponse.NOT_SERVING)
        assert await asyncio.to_thread(probe, target, LIVENESS, 5.0) == "SERVING"
