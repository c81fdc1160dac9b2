"""Fixtures: a Gateway with real Embedding, Catalog and Triton. Only Triton is another process."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from imagesearch.gateway.v1 import image_search_service_pb2_grpc as service
from imagesearch.gateway.v1 import library_pb2
from imagesearch.type.v1 import library_type_pb2
from imagesearch_services.catalog.app import build as build_catalog
from imagesearch_services.catalog.settings import Settings as CatalogSettings
from imagesearch_services.common.env import Env
from imagesearch_services.common.server import RunningServer, Service, start
from imagesearch_services.embedding.app import build as build_embedding
from imagesearch_services.embedding.settings import PREFIX as EMBEDDING_PREFIX
from imagesearch_services.embedding.settings import Settings as EmbeddingSettings
from imagesearch_services.gateway.app import build
from imagesearch_services.gateway.settings import PREFIX, Settings
from tests.ports import free_port
from tests.triton_server import running_triton

T = TypeVar("T")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
Stub = service.ImageSearchServiceStub


class Loop:
    """Event loop in a separate thread, for servers that blocking tests call."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        async def awaited() -> T:
            return await work()

        future: Future[T] = asyncio.run_coroutine_threadsafe(awaited(), self._loop)
        return future.result(timeout=60)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@contextmanager
def running(
    loop: Loop, make: Callable[[], Awaitable[Service]], *, until: int = SERVING
) -> Iterator[str]:
    """Run a service during a test; yield its address once its health is as expected."""

    async def begin() -> tuple[RunningServer, int]:
        service = await make()
        return await start(service), service.settings.port

    server, port = loop.run(begin)
    target = f"127.0.0.1:{port}"
    try:
        wait_for_health(target, until)
        yield target
    finally:
        loop.run(server.stop)


def wait_for_health(target: str, status: int) -> None:
    """Wait until the health of a service is as expected."""
    with grpc.insecure_channel(target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=60
        )
        for update in watch:
            if update.status == status:
                watch.cancel()
                return


@pytest.fixture(scope="session")
def embedding_target(loop: Loop) -> Iterator[str]:
    """The real Embedding service on a real Triton."""
    with running_triton() as triton:
        variables = {
            f"{EMBEDDING_PREFIX}TRITON_TARGET": f"127.0.0.1:{triton.ports.grpc}",
            f"{EMBEDDING_PREFIX}PORT": str(free_port()),
        }

        async def make() -> Service:
            return build_embedding(EmbeddingSettings.from_env(Env(EMBEDDING_PREFIX, variables)))

        with running(loop, make) as target:
            yield target


@pytest.fixture(scope="session")
def catalog_target(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real Catalog on the embedded engine."""
    settings = CatalogSettings.from_env(
        {
            "IMAGESEARCH_CATALOG_DATA_DIR": str(tmp_path_factory.mktemp("catalog")),
            "IMAGESEARCH_CATALOG_PORT": str(free_port()),
        }
    )

    async def make() -> Service:
        return await build_catalog(settings)

    with running(loop, make) as target:
        yield target


class Gateways:
    """Starts Gateways with the settings of a test."""

    def __init__(self, loop: Loop, embedding_target: str, catalog_target: str) -> None:
        self._loop = loop
        self._variables = {
            "EMBEDDING_TARGET": embedding_target,
            "CATALOG_TARGET": catalog_target,
            "METRICS_PORT": "0",
        }
        self._running = ExitStack()

    def start(self, *, until: int = SERVING, **variables: str) -> Stub:
        """Start a Gateway with these variables, wait for its health and connect to it."""
        named = {
            PREFIX + name: value
            for name, value in {**self._variables, "PORT": str(free_port()), **variables}.items()
        }

        async def make() -> Service:
            return build(Settings.from_env(Env(PREFIX, named)))

        target = self._running.enter_context(running(self._loop, make, until=until))
        return Stub(self._running.enter_context(grpc.insecure_channel(target)))

    def close(self) -> None:
        self._running.close()


@pytest.fixture(scope="session")
def gateways(loop: Loop, embedding_target: str, catalog_target: str) -> Iterator[Gateways]:
    gateways = Gateways(loop, embedding_target, catalog_target)
    yield gateways
    gateways.close()


@pytest.fixture(scope="session")
def gateway(gateways: Gateways) -> Stub:
    """A Gateway with the default settings."""
    return gateways.start()


@pytest.fixture
def library(gateway: Stub) -> Iterator[str]:
    """The name of an empty whole-image library."""
    with temporary_library(gateway) as name:
        yield name


@contextmanager
def temporary_library(
    gateway: Stub,
    library_type: library_type_pb2.LibraryType.ValueType = (
        library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE
    ),
) -> Iterator[str]:
    created = gateway.CreateLibrary(
        library_pb2.CreateLibraryRequest(
            library_id=f"test-{uuid.uuid4().hex[:12]}",
            library=library_pb2.Library(type=library_type),
        )
    )
    yield created.name
    gateway.DeleteLibrary(library_pb2.DeleteLibraryRequest(name=created.name))
