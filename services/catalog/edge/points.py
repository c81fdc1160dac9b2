"""Reading, writing and searching points of the embedded engine."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter

import qdrant_edge as q

from imagesearch_services.catalog.edge.conversion import (
    WITH_PAYLOAD,
    read_record,
    read_uid,
    write_filter,
    write_vector,
)
from imagesearch_services.catalog.edge.data_folder import DataFolder
from imagesearch_services.catalog.edge.unreadable import read_points, with_readable_payloads
from imagesearch_services.catalog.failpoints import failpoint
from imagesearch_services.catalog.filters import Filter
from imagesearch_services.catalog.storage import (
    Fields,
    Payload,
    Point,
    Record,
    ScoredPoint,
    Search,
)


class Points:
    """The points of all collections in a data folder. `Storage` documents the methods."""

    def __init__(self, folder: DataFolder, hnsw_ef: int) -> None:
        self._folder = folder
        self._hnsw_ef = hnsw_ef

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        collection = self._folder.collection(name)
        if collection.has_vectors:
            self._folder.space.require()
        else:
            # Deletions write metadata, too. Other changes of metadata call `Storage.check_space`.
            self._folder.space.require_for_deletion()
        failpoint("points.before_write")
        written = [
            q.Point(
                uuid.UUID(bytes=point.uid),
                {space: write_vector(vector) for space, vector in point.vectors.items()},
                point.payload,
            )
            for point in points
        ]
        collection.upsert(written)
        failpoint("points.after_write")

    def set_payload(self, name: str, uid: bytes, payload: Payload) -> None:
        self._folder.space.require()
        self._folder.collection(name).shard.update(
            q.UpdateOperation.overwrite_payload([uuid.UUID(bytes=uid)], payload)
        )

    def delete(self, name: str, uids: Sequence[bytes]) -> None:
        self._folder.space.require_for_deletion()
        collection = self._folder.collection(name)
        ids: list[q.PointId] = [uuid.UUID(bytes=uid) for uid in uids]
        # A deletion that meets an unreadable payload would stop all later writes to the shard.
        read_points(collection.shard, ids, ["image_id"], vectors=False)
        collection.delete(ids)

    def retrieve(
        self, name: str, uids: Sequence[bytes], fields: Fields, vectors: bool
    ) -> list[Record]:
        shard = self._folder.collection(name).shard
        ids = [uuid.UUID(bytes=uid) for uid in uids]
        return read_points(shard, ids, WITH_PAYLOAD[fields], vectors=vectors)

    def scroll(  # noqa: PLR0917  # commands have positional arguments
        self,
        name: str,
        where: Filter | None,
        after: bytes | None,
        limit: int,
        fields: Fields,
        vectors: bool,
    ) -> list[Record]:
        offset = None
        if after is not None:
            number = int.from_bytes(after, "big") + 1
            if number >= 1 << 128:
                return []
            offset = uuid.UUID(int=number)
        shard = self._folder.collection(name).shard
        request = q.ScrollRequest(
            offset=offset,
            limit=limit,
            filter=None if where is None else write_filter(where),
            with_payload=WITH_PAYLOAD[fields],
            with_vector=vectors,
        )
        records, _ = with_readable_payloads(shard, lambda: shard.scroll(request))
        return [read_record(record) for record in records]

    def count(self, name: str, where: Filter | None) -> int:
        shard = self._folder.collection(name).shard
        if where is None:
            return shard.info().points_count
        request = q.CountRequest(exact=True, filter=write_filter(where))
        return with_readable_payloads(shard, lambda: shard.count(request))

    def search(self, name: str, search: Search) -> list[list[ScoredPoint]]:
        return [
            [ScoredPoint(read_uid(hit.id), hit.score, hit.payload or {}) for hit in hits]
            for hits in self._query(name, search)
        ]

    def search_merged(self, name: str, search: Search, limit: int) -> list[ScoredPoint]:
        # Merge as `merge_hits` does, but before the conversion: reading the id of a hit is the
        # slowest step, and only the merged hits are sent to the parent process.
        hits = chain.from_iterable(self._query(name, search))
        best: dict[bytes, ScoredPoint] = {}
        for hit in sorted(hits, key=attrgetter("score"), reverse=True):
            if len(best) == limit:
                break
            uid = read_uid(hit.id)
            if uid not in best:
                best[uid] = ScoredPoint(uid, hit.score, hit.payload or {})
        return list(best.values())

    def _query(self, name: str, search: Search) -> list[list[q.ScoredPoint]]:
        where = None if search.filter is None else write_filter(search.filter)
        params = q.SearchParams(hnsw_ef=search.ef(self._hnsw_ef))
        shard = self._folder.collection(name).shard
        request = q.QueryBatchRequest(
            [
                q.QueryRequest(
                    limit=search.limit,
                    query=q.Query.Nearest(write_vector(vector), using=search.space),
                    filter=where,
                    with_payload=WITH_PAYLOAD[search.fields],
                    score_threshold=search.exclusive_min_similarity,
                    params=params,
                )
                for vector in search.vectors
            ]
        )
        return with_readable_payloads(shard, lambda: shard.query_batch(request))
