"""Channels call healthy addresses, notice addresses that do not answer, and give up at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from imagesearch.catalog.v1 import catalog_service_pb2 as catalog
from imagesearch.catalog.v1 import catalog_service_pb2_grpc as catalog_grpc
from imagesearch_services.common import channels
from imagesearch_services.common.env import Env
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.probe import probe
from imagesearch_services.common.server import ServerSettings, Service, serve, start
from tests.ports import free_port
from tests.waiting import until

SERVICE = catalog.DESCRIPTOR.services_by_name["CatalogService"]
UNHEALTHY = "the disk is on fire"


class Named(catalog_grpc.CatalogServiceServicer):
    """A service that returns its port, or says what is wrong with it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.is_healthy = True

    async def GetLibrary(  # noqa: N802
        self, _request: catalog.GetLibraryRequest, _context: object
    ) -> catalog.Library:
        await self.check()
        return catalog.Library(library_id=str(self.port))

    async def check(self) -> None:
        if not self.is_healthy:
            raise ServiceError(Reason.STORAGE_UNAVAILABLE, UNHEALTHY)

    async def close(self) -> None:
        """Do nothing: there are no resources to release."""

    def service(self) -> Service:
        return Service(
            name="named",
            descriptor_names=[SERVICE.full_name],
            register=lambda server: catalog_grpc.add_CatalogServiceServicer_to_server(self, server),
            settings=ServerSettings.from_env(
                Env("NAMED_", {"NAMED_CHECK_INTERVAL_S": "0.05"}),
                port=self.port,
                metrics_port=0,
                max_message_bytes=1_000_000,
            ),
            check=self.check,
            close=self.close,
        )


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Named]:
    named = Named(free_port())
    server = await start(named.service())
    try:
        yield named
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def other_process() -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    """Run the same service in another process, which can be stopped."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.unit.common.test_routing", str(port)
    )
    try:
        await until(lambda: reports(port, "SERVING"))
        yield port, process
    finally:
        process.kill()
        await process.wait()


async def reports(port: int, status: str) -> bool:
    return await asyncio.to_thread(probe, f"127.0.0.1:{port}", "", 1.0) == status


class Caller:
    """Calls the service behind several ports."""

    def __init__(self, *ports: int) -> None:
        target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        self.channel = channels.connect(target, SERVICE)
        self._stub = catalog_grpc.CatalogServiceStub(self.channel)

    async def call(self) -> int:
        library = await channels.call(
            self._stub.GetLibrary,
            catalog.GetLibraryRequest(),
            peer=Reason.CATALOG_UNAVAILABLE,
            timeout_s=20,
        )
        return int(library.library_id)

    async def answering(self) -> set[int]:
        return {await self.call() for _ in range(8)}


async def test_calls_go_to_healthy_addresses() -> None:
    async with running() as first, running() as second:
        caller = Caller(first.port, second.port)
        both = {first.port, second.port}

        async def answers_from(ports: set[int]) -> bool:
            return await caller.answering() == ports

        await until(lambda: answers_from(both))
        first.is_healthy = False
        await until(lambda: answers_from({second.port}))
        first.is_healthy = True
        await until(lambda: answers_from(both))
        await caller.channel.close()


async def test_a_service_without_a_healthy_address_says_what_is_wrong() -> None:
    async with running() as named:
        caller = Caller(named.port)
        assert await caller.call() == named.port
        named.is_healthy = False

        async def described() -> str:
            with pytest.raises(ServiceError) as caught:
                await caller.call()
            return caught.value.message

        # Health changes while gRPC repeats the calls.
        messages = await asyncio.gather(*(described() for _ in range(50)))
        assert set(messages) == {UNHEALTHY}
        await until(lambda: reports(named.port, "NOT_SERVING"))
        assert await described() == UNHEALTHY
        named.is_healthy = True
        await until(lambda: reports(named.port, "SERVING"))
        assert await caller.call() == named.port
        await caller.channel.close()


async def test_a_stopped_process_is_avoided_and_used_again() -> None:
    async with running() as named, other_process() as (port, process):
        caller, lonely = Caller(named.port, port), Caller(port)
        both = {named.port, port}

        async def answers_from(ports: set[int]) -> bool:
            return await caller.answering() == ports

        await until(lambda: answers_from(both))
        assert await lonely.call() == port
        os.kill(process.pid, signal.SIGSTOP)
        # Calls that were sent to the stopped process are repeated on the other.
        assert await caller.answering() == {named.port}
        with pytest.raises(ServiceError) as caught:
            await lonely.call()
        assert caught.value.reason is Reason.CATALOG_UNAVAILABLE
        os.kill(process.pid, signal.SIGCONT)
        await until(lambda: answers_from(both))
        assert await lonely.call() == port
        await caller.channel.close()
        await lonely.channel.close()


if __name__ == "__main__":
    asyncio.run(serve(Named(int(sys.argv[1])).service()))
