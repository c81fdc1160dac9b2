"""A running Catalog for tests, a client with short methods, and functions that create messages."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from qdrant_client import AsyncQdrantClient

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.catalog.v1 import catalog_service_pb2_grpc as pb_grpc
from imagesearch.catalog.v1 import filter_pb2
from imagesearch.type.v1 import tag_pb2
from imagesearch_services.catalog.app import build
from imagesearch_services.catalog.backends import open_blob_store
from imagesearch_services.catalog.blobs import BlobStore
from imagesearch_services.catalog.cluster.settings import ClusterSettings
from imagesearch_services.catalog.cluster.storage import ClusterStorage
from imagesearch_services.catalog.settings import Settings
from imagesearch_services.catalog.storage import Storage
from imagesearch_services.common import server
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.status import from_rpc_error, from_status
from tests.ports import free_port

SPACE = "copy@1"
SPACE_DIMENSIONS = 16
OTHER_SPACE = "look@1"
OTHER_DIMENSIONS = 4


def settings_for(data_dir: Path, **changes: str) -> Settings:
    return Settings.from_env(
        {
            "IMAGESEARCH_CATALOG_DATA_DIR": str(data_dir),
            "IMAGESEARCH_CATALOG_PORT": str(free_port()),
            "IMAGESEARCH_CATALOG_GRACE_S": "2",
            **{f"IMAGESEARCH_CATALOG_{name}": value for name, value in changes.items()},
        }
    )


def make_local_cluster() -> ClusterStorage:
    """Return the cluster backend in the client's local mode, without a server or a network."""
    return ClusterStorage(
        ClusterSettings(
            url="",
            grpc_port=0,
            api_key="",
            shard_number=1,
            replication_factor=1,
            write_consistency=1,
            timeout_s=10,
            indexing_threshold=0,
            hnsw_m=16,
            hnsw_ef_construct=100,
            hnsw_ef=128,
        ),
        AsyncQdrantClient(":memory:"),
    )


@asynccontextmanager
async def running_catalog(
    settings: Settings,
    storage: Storage | None = None,
    *,
    blobs: BlobStore | None = None,
    sweep_interval_s: float = 24 * 3600.0,
) -> AsyncIterator[Catalog]:
    """Run a Catalog in this process behind a real gRPC server."""
    settings = replace(settings, blob_sweep_interval_s=sweep_interval_s)
    service = await build(settings, storage=storage, blobs=blobs)
    running = await server.start(service)
    try:
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{settings.server.port}",
            options=[("grpc.max_receive_message_length", 64 << 20)],
        ) as channel:
            yield Catalog(channel, blobs or open_blob_store(settings))
    finally:
        await running.stop()


class Catalog:
    """A client of the service with short methods for frequent calls."""

    def __init__(self, channel: grpc.aio.Channel, blobs: BlobStore | None = None) -> None:
        self.channel = channel
        self.stub = pb_grpc.CatalogServiceStub(channel)
        self._blobs = blobs

    async def make_library(self, library_id: str, **fields: Any) -> pb.Library:
        library = pb.Library(library_id=library_id, type=1, **fields)
        if not library.spaces:
            library.spaces.add(name=SPACE, dimensions=SPACE_DIMENSIONS)
        return await self.stub.CreateLibrary(pb.CreateLibraryRequest(library=library))

    async def put(
        self, library_id: str, *entries: pb.Entry, **terms: Any
    ) -> Sequence[pb.PutEntryResult]:
        """Store entries and return the result of each."""
        request = pb.PutEntriesRequest(library_id=library_id, entries=entries, **terms)
        return (await self.stub.PutEntries(request)).results

    async def store(self, library_id: str, *entries: pb.Entry, **terms: Any) -> list[pb.Entry]:
        """Store entries and assert that all were stored."""
        results = await self.put(library_id, *entries, **terms)
        assert [result.error.message for result in results] == [""] * len(entries)
        return [result.entry for result in results]

    async def get(self, library_id: str, *image_ids: str, **options: Any) -> list[pb.Entry]:
        request = pb.GetEntriesRequest(library_id=library_id, image_ids=image_ids, **options)
        return list((await self.stub.GetEntries(request)).entries)

    async def library(self, library_id: str) -> pb.Library:
        return await self.stub.GetLibrary(pb.GetLibraryRequest(library_id=library_id))

    async def count(self, library_id: str, where: filter_pb2.Filter | None = None) -> int:
        request = pb.ListEntriesRequest(library_id=library_id, filter=where, page_size=1)
        return (await self.stub.ListEntries(request)).total_count

    async def find(self, library_id: str, where: filter_pb2.Filter | None = None) -> set[str]:
        """Return the image ids of all entries that match a filter."""
        request = pb.ListEntriesRequest(library_id=library_id, filter=where, page_size=1000)
        response = await self.stub.ListEntries(request)
        assert response.total_count == len(response.entries)
        return {entry.image_id for entry in response.entries}

    async def query(self, library_id: str, *vectors: bytes, **options: Any) -> list[list[pb.Hit]]:
        request = pb.QueryEntriesRequest(
            library_id=library_id,
            vectors=[{"space": SPACE, "values": values} for values in vectors],
            **options,
        )
        results = (await self.stub.QueryEntries(request)).results
        return [list(result.hits) for result in results]

    async def nearest(self, library_id: str, vector: bytes, **options: Any) -> list[str]:
        (hits,) = await self.query(library_id, vector, include_entries=True, **options)
        return [hit.entry.image_id for hit in hits]

    async def update(
        self, library_id: str, entry: pb.Entry, *paths: str, request_id: str = ""
    ) -> pb.Entry:
        return await self.stub.UpdateEntry(
            pb.UpdateEntryRequest(
                library_id=library_id,
                entry=entry,
                update_mask=FieldMask(paths=paths),
                request_id=request_id,
            )
        )

    async def delete(self, library_id: str, *image_ids: str, **options: Any) -> int:
        request = pb.DeleteEntriesRequest(library_id=library_id, image_ids=image_ids, **options)
        return (await self.stub.DeleteEntries(request)).deleted_count

    @property
    def blobs(self) -> BlobStore:
        """The blob store of the service, for direct reads and writes."""
        assert self._blobs is not None
        return self._blobs

    async def blob_names(self, library_uid: str) -> list[str]:
        """Return the names of a library's blobs."""
        return [blob.name async for page in self.blobs.list_pages(library_uid) for blob in page]

    async def thumbnails(self, library_id: str, *image_ids: str, **options: Any) -> list[bytes]:
        request = pb.GetThumbnailsRequest(library_id=library_id, image_ids=image_ids, **options)
        return list((await self.stub.GetThumbnails(request)).thumbnails)


def vector_at(degrees: float) -> bytes:
    """Return the unit vector of `SPACE` at an angle to the first axis, in degrees."""
    vector = np.zeros(SPACE_DIMENSIONS, "<f4")
    vector[0], vector[1] = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return vector.tobytes()


def random_units(count: int, dimensions: int = SPACE_DIMENSIONS, seed: int = 0) -> list[bytes]:
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions)).astype("<f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [vector.tobytes() for vector in vectors]


def make_entry(image_id: str, values: bytes | None = None, **fields: Any) -> pb.Entry:
    """Return an entry with one vector of `SPACE`; tags may be plain Python values."""
    tags = {name: tag(value) for name, value in fields.pop("tags", {}).items()}
    entry = pb.Entry(image_id=image_id, tags=tags, **fields)
    entry.vectors.add(space=SPACE, values=vector_at(0) if values is None else values)
    return entry


def tag(value: str | float | bool) -> tag_pb2.TagValue:
    if isinstance(value, bool):
        return tag_pb2.TagValue(bool_value=value)
    if isinstance(value, int):
        return tag_pb2.TagValue(int_value=value)
    if isinstance(value, float):
        return tag_pb2.TagValue(float_value=value)
    return tag_pb2.TagValue(string_value=value)


OPERATORS = {
    "=": filter_pb2.Condition.OPERATOR_EQUAL,
    "!=": filter_pb2.Condition.OPERATOR_NOT_EQUAL,
    "<": filter_pb2.Condition.OPERATOR_LESS,
    "<=": filter_pb2.Condition.OPERATOR_LESS_OR_EQUAL,
    ">": filter_pb2.Condition.OPERATOR_GREATER,
    ">=": filter_pb2.Condition.OPERATOR_GREATER_OR_EQUAL,
}


def where(field: str, operator: str, value: str | float | bool) -> filter_pb2.Filter:
    condition = filter_pb2.Condition(field=field, operator=OPERATORS[operator], value=tag(value))
    return filter_pb2.Filter(condition=condition)


def has(field: str) -> filter_pb2.Filter:
    condition = filter_pb2.Condition(field=field, operator=filter_pb2.Condition.OPERATOR_HAS)
    return filter_pb2.Filter(condition=condition)


def all_of(*filters: filter_pb2.Filter) -> filter_pb2.Filter:
    return filter_pb2.Filter(all_of=filter_pb2.FilterList(filters=filters))


def any_of(*filters: filter_pb2.Filter) -> filter_pb2.Filter:
    return filter_pb2.Filter(any_of=filter_pb2.FilterList(filters=filters))


def negated(member: filter_pb2.Filter) -> filter_pb2.Filter:
    return filter_pb2.Filter(negation=member)


def reason_of(result: pb.PutEntryResult) -> Reason | None:
    if result.WhichOneof("result") == "entry":
        return None
    error = from_status(result.error)
    assert error is not None
    return error.reason


@contextmanager
def refused(reason: Reason) -> Iterator[list[ServiceError]]:
    """Assert that a call fails with a reason. The yielded list then contains the error."""
    errors: list[ServiceError] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield errors
    errors.append(from_rpc_error(caught.value, peer=Reason.CATALOG_UNAVAILABLE))
    assert errors[0].reason is reason, caught.value
