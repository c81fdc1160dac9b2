"""The scaled-out backend: a Qdrant server or cluster over gRPC.

Only calls that a server knows are made; tests run them on the client's local mode, which
proves the calls, but neither the wire nor the indexes. Several Catalogs may share a server:
what one of them holds locks on, the others do not see, so two that store the same new image
at the same moment both succeed and the later one stays.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from qdrant_client import AsyncQdrantClient, models

from imagesearch_services.catalog import filters
from imagesearch_services.catalog.filters import Filter
from imagesearch_services.catalog.model import FieldType, VectorData, VectorSpace
from imagesearch_services.catalog.storage import (
    FEATURES_KEY,
    THUMBNAIL_KEY,
    CollectionStats,
    Fields,
    Payload,
    Point,
    Record,
    Scored,
    Search,
    has_links,
    merged,
    storage_error,
)
from imagesearch_services.common.logs import logger
from imagesearch_services.common.types import SparseVector

COLLECTION_PREFIX = "imagesearch_"
"""Tells our collections from others' on the same server."""


WITH_PAYLOAD: dict[Fields, bool | list[str] | models.PayloadSelector] = {
    Fields.NONE: False,
    Fields.ENTITY: ["entity_id", "image_id"],
    Fields.THUMBNAIL: [THUMBNAIL_KEY],
    Fields.FEATURES: [FEATURES_KEY],
    Fields.ENTRY: models.PayloadSelectorExclude(exclude=[FEATURES_KEY]),
    Fields.ALL: True,
}

COMPACT_SPARSE = models.SparseIndexParams(datatype=models.Datatype.FLOAT16)

KB_A_VECTOR = 2
"""Qdrant counts its indexing threshold in kilobytes of vectors; ours is in vectors, of about
512 single precision components."""


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Where the server is and how collections are made on it."""

    url: str
    grpc_port: int
    api_key: str = field(repr=False)
    shard_number: int
    replication_factor: int
    write_consistency: int
    """Replicas that must have a write before it is acknowledged."""
    timeout_s: float
    indexing_threshold: int
    """Unindexed vectors of a segment that start the building of its index; 0: never."""
    hnsw_m: int
    hnsw_ef_construct: int
    hnsw_ef: int


class ClusterStorage:
    """`Storage` on collections of a server."""

    exclusive = False
    parallel_calls = 16

    def __init__(self, settings: ClusterSettings, client: AsyncQdrantClient | None = None) -> None:
        """Prepare; a client that is given is used in the place of one to `settings.url`."""
        self._settings = settings
        self._client = client or AsyncQdrantClient(
            url=settings.url,
            grpc_port=settings.grpc_port,
            prefer_grpc=True,
            api_key=settings.api_key or None,
            timeout=round(settings.timeout_s),
            check_compatibility=False,
        )

    async def start(self) -> None:
        await self.check()

    async def check(self) -> None:
        async with _translated():
            await self._client.get_collections()

    async def close(self) -> None:
        await self._client.close()

    async def create_collection(
        self, name: str, spaces: Sequence[VectorSpace], indexes: Mapping[str, FieldType]
    ) -> None:
        settings = self._settings
        async with _translated():
            if not await self._client.collection_exists(_full(name)):
                await self._client.create_collection(
                    _full(name),
                    vectors_config={
                        space.name: models.VectorParams(
                            size=space.dimensions,
                            distance=models.Distance.COSINE,
                            datatype=models.Datatype.TURBO8 if space.compact else None,
                        )
                        for space in spaces
                        if not space.sparse
                    },
                    sparse_vectors_config={
                        space.name: models.SparseVectorParams(
                            modifier=models.Modifier.IDF,
                            index=COMPACT_SPARSE if space.compact else None,
                        )
                        for space in spaces
                        if space.sparse
                    },
                    shard_number=settings.shard_number,
                    replication_factor=settings.replication_factor,
                    write_consistency_factor=settings.write_consistency,
                    hnsw_config=models.HnswConfigDiff(
                        m=settings.hnsw_m, ef_construct=settings.hnsw_ef_construct
                    ),
                    optimizers_config=models.OptimizersConfigDiff(
                        indexing_threshold=settings.indexing_threshold * KB_A_VECTOR
                    ),
                )
            for field_name, field_type in indexes.items():
                await self._create_index(name, field_name, field_type)

    async def drop_collection(self, name: str) -> None:
        async with _translated():
            await self._client.delete_collection(_full(name))

    async def keep_only(self, names: frozenset[str]) -> None:
        """Leave all as it is: other collections may be another Catalog's."""

    async def create_index(self, name: str, field: str, field_type: FieldType) -> None:
        async with _translated():
            await self._create_index(name, field, field_type)

    async def stats(self, name: str) -> CollectionStats:
        async with _translated():
            count, info = await asyncio.gather(
                self._client.count(_full(name), exact=True),
                self._client.get_collection(_full(name)),
            )
        spaces = info.config.params.vectors
        dense = count.count * (len(spaces) if isinstance(spaces, dict) else 0)
        sparse = count.count * len(info.config.params.sparse_vectors or {})
        indexed = max(0, (info.indexed_vectors_count or 0) - sparse)
        return CollectionStats(count.count, max(0, dense - indexed))

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        async with _translated():
            await self._client.upsert(
                _full(name),
                points=[
                    models.PointStruct(
                        id=_id(point.uid),
                        vector={
                            space: _to_engine(vector) for space, vector in point.vectors.items()
                        },
                        payload=point.payload,
                    )
                    for point in points
                ],
                wait=True,
                ordering=models.WriteOrdering.STRONG,
            )

    async def set_payload(self, name: str, uid: bytes, payload: Payload) -> None:
        async with _translated():
            await self._client.overwrite_payload(
                _full(name),
                payload=payload,
                points=[_id(uid)],
                wait=True,
                ordering=models.WriteOrdering.STRONG,
            )

    async def delete(self, name: str, uids: Sequence[bytes]) -> None:
        async with _translated():
            await self._client.delete(
                _full(name),
                points_selector=models.PointIdsList(points=[_id(uid) for uid in uids]),
                wait=True,
                ordering=models.WriteOrdering.STRONG,
            )

    async def retrieve(
        self, name: str, uids: Sequence[bytes], fields: Fields, *, vectors: bool = False
    ) -> list[Record]:
        async with _translated():
            found = await self._client.retrieve(
                _full(name),
                ids=[_id(uid) for uid in uids],
                with_payload=WITH_PAYLOAD[fields],
                with_vectors=vectors,
            )
        return [_record(record) for record in found]

    async def scroll(
        self,
        name: str,
        where: Filter | None,
        after: bytes | None,
        limit: int,
        fields: Fields,
        *,
        vectors: bool = False,
    ) -> list[Record]:
        offset = None
        if after is not None:
            number = int.from_bytes(after, "big") + 1
            if number >= 1 << 128:
                return []
            offset = str(uuid.UUID(int=number))
        async with _translated():
            found, _ = await self._client.scroll(
                _full(name),
                scroll_filter=None if where is None else _filter(where),
                limit=limit,
                offset=offset,
                with_payload=WITH_PAYLOAD[fields],
                with_vectors=vectors,
            )
        return [_record(record) for record in found]

    async def count(self, name: str, where: Filter | None) -> int:
        async with _translated():
            result = await self._client.count(
                _full(name),
                count_filter=None if where is None else _filter(where),
                exact=True,
            )
        return result.count

    async def search(self, name: str, search: Search) -> list[list[Scored]]:
        floor = None
        if search.min_similarity is not None:
            # Servers leave out what equals the threshold.
            floor = float(np.nextafter(np.float32(search.min_similarity), np.float32(-np.inf)))
        where = None if search.filter is None else _filter(search.filter)
        params = models.SearchParams(hnsw_ef=search.ef(self._settings.hnsw_ef))
        async with _translated():
            responses = await self._client.query_batch_points(
                _full(name),
                requests=[
                    models.QueryRequest(
                        query=models.NearestQuery(nearest=_to_engine(vector)),
                        using=search.space,
                        filter=where,
                        params=params,
                        score_threshold=floor,
                        limit=search.limit,
                        with_payload=WITH_PAYLOAD[search.fields],
                    )
                    for vector in search.vectors
                ],
            )
        return [
            [Scored(_uid(hit.id), hit.score, hit.payload or {}) for hit in response.points]
            for response in responses
        ]

    async def search_merged(self, name: str, search: Search, limit: int) -> list[Scored]:
        return merged(chain.from_iterable(await self.search(name, search)), limit)

    async def _create_index(self, name: str, field_name: str, field_type: FieldType) -> None:
        await self._client.create_payload_index(
            _full(name), field_name, field_schema=_index_params(field_name, field_type), wait=True
        )


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    """Turn whatever the client raises into the one error that we promise."""
    try:
        yield
    except Exception as error:
        logger().error("the storage server failed", error=f"{type(error).__name__}: {error}")
        raise storage_error("the storage server does not answer") from error


def _index_params(name: str, field_type: FieldType) -> models.PayloadSchemaParams:
    links = has_links(name, field_type)
    match field_type:
        case FieldType.STRING:
            return models.KeywordIndexParams(
                type=models.KeywordIndexType.KEYWORD, enable_hnsw=links
            )
        case FieldType.INTEGER:
            return models.IntegerIndexParams(
                type=models.IntegerIndexType.INTEGER, enable_hnsw=links
            )
        case FieldType.FLOAT:
            return models.FloatIndexParams(type=models.FloatIndexType.FLOAT, enable_hnsw=links)
        case FieldType.BOOLEAN:
            return models.BoolIndexParams(type=models.BoolIndexType.BOOL, enable_hnsw=links)


def _full(name: str) -> str:
    return COLLECTION_PREFIX + name


def _id(uid: bytes) -> str:
    return str(uuid.UUID(bytes=uid))


def _uid(point_id: Any) -> bytes:
    return uuid.UUID(str(point_id)).bytes


def _to_engine(vector: VectorData) -> Any:
    if isinstance(vector, SparseVector):
        return models.SparseVector(indices=list(vector.indices), values=list(vector.values))
    return np.frombuffer(vector, "<f4").tolist()


def _from_engine(space: str, vector: Any) -> VectorData:
    if isinstance(vector, models.SparseVector):
        return SparseVector(space, tuple(vector.indices), tuple(vector.values))
    return np.asarray(vector, "<f4").tobytes()


def _record(record: models.Record) -> Record:
    vectors: Any = record.vector or {}
    return Record(
        _uid(record.id),
        record.payload or {},
        {space: _from_engine(space, vector) for space, vector in vectors.items()},
    )


def _filter(where: Filter) -> models.Filter:
    condition = _condition(where)
    return condition if isinstance(condition, models.Filter) else models.Filter(must=[condition])


def _condition(where: Filter) -> models.Condition:
    match where:
        case filters.AllOf(members):
            return models.Filter(must=[_condition(member) for member in members])
        case filters.AnyOf(members):
            return models.Filter(should=[_condition(member) for member in members])
        case filters.Not(member):
            return models.Filter(must_not=[_condition(member)])
        case filters.Exists(name):
            empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=name))
            return models.Filter(must_not=[empty])
        case filters.Match(name, values):
            return models.FieldCondition(key=name, match=_match(values))
        case filters.Range(name, gt, gte, lt, lte):
            return models.FieldCondition(
                key=name, range=models.Range(gt=gt, gte=gte, lt=lt, lte=lte)
            )
    raise TypeError(f"not bound: {where!r}")


def _match(values: Sequence[str] | Sequence[int] | Sequence[bool]) -> models.Match:
    if len(values) > 1:
        return models.MatchAny(any=list(values))  # type: ignore[arg-type]  # one kind
    return models.MatchValue(value=values[0])
