"""Stubs of the running suite, and libraries that are deleted after the test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest

from imagesearch.gateway.v1 import image_search_service_pb2_grpc as service
from imagesearch.gateway.v1 import library_pb2
from imagesearch.type.v1 import library_type_pb2
from imagesearch_services.runner.suite import Suite

Stub = service.ImageSearchServiceStub


@pytest.fixture(scope="session")
def gateway(suite: Suite) -> Iterator[Stub]:
    """A blocking stub of the shared suite."""
    with open_channel(suite.target) as channel:
        yield service.ImageSearchServiceStub(channel)


@pytest.fixture
async def async_gateway(suite: Suite) -> AsyncIterator[Stub]:
    """An asyncio stub for concurrent calls."""
    async with grpc.aio.insecure_channel(suite.target) as channel:
        yield service.ImageSearchServiceStub(channel)


@pytest.fixture
def library(gateway: Stub) -> Iterator[str]:
    """The name of an empty whole-image library."""
    yield from temporary_library(gateway)


def open_channel(target: str) -> grpc.Channel:
    return grpc.insecure_channel(
        target,
        options=[("grpc.max_reconnect_backoff_ms", 500), ("grpc.use_local_subchannel_pool", 1)],
    )


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
