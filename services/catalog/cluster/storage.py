"""`Storage` on a Qdrant server or cluster.

Tests use the client's local mode, which covers neither the wire format nor the indexes.
Catalogs that share a server do not share locks: when two of them add the same new image
concurrently, both succeed and the later write wins.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import chain

from qdrant_client import AsyncQdrantClient, models

from imagesearch_services.catalog.cluster.conversion import (
    WITH_PAYLOAD,
    index_params,
    read_record,
    read_uid,
    write_filter,
    write_uid,
    write_vector,
)
from imagesearch_services.catalog.cluster.settings import ClusterSettings
from imagesearch_services.catalog.filters import Filter
from imagesearch_services.catalog.model import FieldType, VectorSpace
from imagesearch_services.catalog.storage import (
    CollectionStats,
    Fields,
    FoundCollection,
    Payload,
    Point,
    Record,
    ScoredPoint,
    Search,
    damaged_error,
    merge_hits,
    storage_error,
)
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.logs import logger

COLLECTION_PREFIX = "imagesearch_"
"""Prefix of collection names: other applications may share the server."""

COMPACT_SPARSE = models.SparseIndexParams(datatype=models.Datatype.FLOAT16)
"""Index parameters of compact sparse spaces, whose weights are stored as float16."""

KB_PER_VECTOR = 2
"""Size of a vector of 512 float32 components, in KB: the unit of Qdrant's indexing threshold."""


class ClusterStorage:
    """Collections on a Qdrant server, which other Catalogs may share."""

    exclusive = False
    parallel_calls = 16

    def __init__(self, settings: ClusterSettings, client: AsyncQdrantClient | None = None) -> None:
        """Use `client`, or a new client of the server at `settings.url`."""
        self._settings = settings
        self.damaged_error: Callable[[str], ServiceError] = damaged_error
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
        async with _storage_errors():
            await self._client.get_collections()

    async def check_space(self) -> None:
        """Do nothing: the server refuses writes itself."""

    async def close(self) -> None:
        await self._client.close()

    async def create_collection(
        self, name: str, spaces: Sequence[VectorSpace], indexes: Mapping[str, FieldType]
    ) -> None:
        async with _storage_errors():
            if not await self._client.collection_exists(_collection_name(name)):
                await self._create_collection(name, spaces)
            for field, field_type in indexes.items():
                await self._create_index(name, field, field_type)

    async def drop_collection(self, name: str) -> None:
        async with _storage_errors():
            await self._client.delete_collection(_collection_name(name))

    async def read_identity(self) -> str:
        """Return nothing: the identity is in the metadata collection only."""
        return ""

    async def write_identity(self, installation_id: str) -> None:
        """Do nothing, see `read_identity`."""

    async def survey(self) -> list[FoundCollection]:
        async with _storage_errors():
            answer = await self._client.get_collections()
        return [
            FoundCollection(collection.name.removeprefix(COLLECTION_PREFIX), "", None)
            for collection in answer.collections
            if collection.name.startswith(COLLECTION_PREFIX)
        ]

    async def set_aside(self, name: str) -> str:
        """Do nothing: other collections may belong to another Catalog."""
        del name
        return ""

    async def bring_back(self, name: str) -> bool:
        """Do nothing, see `set_aside`."""
        del name
        return False

    async def write_record(self, name: str, record: Payload) -> None:
        """Do nothing: the server replicates the metadata collection."""

    async def create_index(self, name: str, field: str, field_type: FieldType) -> None:
        async with _storage_errors():
            await self._create_index(name, field, field_type)

    async def drop_index(self, name: str, field: str) -> None:
        async with _storage_errors():
            await self._client.delete_payload_index(_collection_name(name), field, wait=True)

    async def stats(self, name: str) -> CollectionStats:
        async with _storage_errors():
            count, info = await asyncio.gather(
                self._client.count(_collection_name(name), exact=True),
                self._client.get_collection(_collection_name(name)),
            )
        spaces = info.config.params.vectors
        dense = count.count * (len(spaces) if isinstance(spaces, dict) else 0)
        sparse = count.count * len(info.config.params.sparse_vectors or {})
        indexed = max(0, (info.indexed_vectors_count or 0) - sparse)
        return CollectionStats(count.count, max(0, dense - indexed))

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        async with _storage_errors():
            await self._client.upsert(
                _collection_name(name),
                points=[
                    models.PointStruct(
                        id=write_uid(point.uid),
                        vector={
                            space: write_vector(vector) for space, vector in point.vectors.items()
                        },
                        payload=point.payload,
                    )
                    for point in points
                ],
                wait=True,
                ordering=models.WriteOrdering.STRONG,
            )

    async def set_payload(self, name: str, uid: bytes, payload: Payload) -> None:
        async with _storage_errors():
            await self._client.overwrite_payload(
                _collection_name(name),
                payload=payload,
                points=[write_uid(uid)],
                wait=True,
                ordering=models.WriteOrdering.STRONG,
            )

    async def delete(self, name: str, uids: Sequence[bytes]) -> None:
        async with _storage_errors():
            await self._client.delete(
                _collection_name(name),
                points_selector=models.PointIdsList(points=[write_uid(uid) for uid in uids]),
                wait=True,
                ordering=models.WriteOrdering.STRONG,
            )

    async def retrieve(
        self, name: str, uids: Sequence[bytes], fields: Fields, *, vectors: bool = False
    ) -> list[Record]:
        async with _storage_errors():
            records = await self._client.retrieve(
                _collection_name(name),
                ids=[write_uid(uid) for uid in uids],
                with_payload=WITH_PAYLOAD[fields],
                with_vectors=vectors,
            )
        return [read_record(record) for record in records]

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
        async with _storage_errors():
            records, _ = await self._client.scroll(
                _collection_name(name),
                scroll_filter=None if where is None else write_filter(where),
                limit=limit,
                offset=offset,
                with_payload=WITH_PAYLOAD[fields],
                with_vectors=vectors,
            )
        return [read_record(record) for record in records]

    async def count(self, name: str, where: Filter | None) -> int:
        async with _storage_errors():
            result = await self._client.count(
                _collection_name(name),
                count_filter=None if where is None else write_filter(where),
                exact=True,
            )
        return result.count

    async def search(self, name: str, search: Search) -> list[list[ScoredPoint]]:
        where = None if search.filter is None else write_filter(search.filter)
        params = models.SearchParams(hnsw_ef=search.ef(self._settings.hnsw_ef))
        async with _storage_errors():
            responses = await self._client.query_batch_points(
                _collection_name(name),
                requests=[
                    models.QueryRequest(
                        query=models.NearestQuery(nearest=write_vector(vector)),
                        using=search.space,
                        filter=where,
                        params=params,
                        score_threshold=search.exclusive_min_similarity,
                        limit=search.limit,
                        with_payload=WITH_PAYLOAD[search.fields],
                    )
                    for vector in search.vectors
                ],
            )
        return [
            [ScoredPoint(read_uid(hit.id), hit.score, hit.payload or {}) for hit in response.points]
            for response in responses
        ]

    async def search_merged(self, name: str, search: Search, limit: int) -> list[ScoredPoint]:
        return merge_hits(chain.from_iterable(await self.search(name, search)), limit)

    async def _create_collection(self, name: str, spaces: Sequence[VectorSpace]) -> None:
        settings = self._settings
        await self._client.create_collection(
            _collection_name(name),
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
                indexing_threshold=settings.indexing_threshold * KB_PER_VECTOR
            ),
        )

    async def _create_index(self, name: str, field: str, field_type: FieldType) -> None:
        await self._client.create_payload_index(
            _collection_name(name), field, field_schema=index_params(field, field_type), wait=True
        )


@asynccontextmanager
async def _storage_errors() -> AsyncIterator[None]:
    """Convert every exception of the client to `storage_error`."""
    try:
        yield
    except Exception as error:
        logger().error("storage.call_failed", error=f"{type(error).__name__}: {error}")
        raise storage_error("the storage server does not answer") from error


def _collection_name(name: str) -> str:
    return COLLECTION_PREFIX + name
