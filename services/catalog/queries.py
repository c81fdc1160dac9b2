"""Searching entries by their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from imagesearch_services.catalog.entry.reading import read_entry
from imagesearch_services.catalog.entry.vector_checks import check_query_vectors, check_sparse
from imagesearch_services.catalog.filter_binding import bind_filter, engine_filter
from imagesearch_services.catalog.filters import Filter, Match, all_of, any_of, negate
from imagesearch_services.catalog.library.libraries import Libraries
from imagesearch_services.catalog.model import Entry, Library, VectorData, VectorSpace
from imagesearch_services.catalog.storage import Fields, ScoredPoint, Search, Storage
from imagesearch_services.catalog.thumbnails.reader import MAX_THUMBNAILS, Thumbnails
from imagesearch_services.common.errors import ServiceError, field_error
from imagesearch_services.common.types import SparseVector

MAX_VECTORS = 200
"""Maximum dense query vectors per call."""
DEFAULT_LIMIT = 10
MAX_LIMIT = 1001
"""Maximum hits per query vector: one more than a caller shows, which reveals a further page."""
MANY_VECTORS = 16
"""Number of merged query vectors from which each is searched with `MERGED_BREADTH`."""
MERGED_BREADTH = 0.5
"""Share of the usual HNSW search breadth for each of many merged query vectors.

An entry missed for one vector is found for another: recall .995 instead of .996 of 300 among
100,000, in two thirds of the time.
"""
OVER_FETCH = 3
"""Hits requested per hit needed when only the best hit of each entity counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A search request."""

    library_id: str
    library_uid: str = ""
    space: str
    vectors: Sequence[bytes] = ()
    """Dense vectors of `space`; empty if `sparse` is set."""
    sparse: SparseVector | None = None
    filter: Filter | None = None
    limit: int = 0
    min_similarity: float | None = None
    include_entries: bool = False
    entry_count: int = 0
    """Number of first hits of each vector that come with their entries; 0: all hits."""
    thumbnail_count: int = 0
    """Number of first hits of each vector that get their thumbnails."""
    distinct_entities: bool = False
    merged: bool = False
    """Whether all vectors share one list of hits, with each entry once."""
    merged_hits_per_vector: int = 0
    """Hits of each vector that enter the merged list; 0: `limit`."""


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry near a query vector; `entry` is None unless requested."""

    uid: bytes
    similarity: float
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class QueryResults:
    """The hits of each query vector, best first."""

    hits: Sequence[Sequence[Hit]]
    thumbnails_error: ServiceError | None = None
    """Why requested thumbnails are missing."""


class Queries:
    """Searches in all libraries."""

    def __init__(self, storage: Storage, libraries: Libraries, thumbnails: Thumbnails) -> None:
        self._storage = storage
        self._libraries = libraries
        self._thumbnails = thumbnails

    async def query(self, query: Query) -> QueryResults:
        """Find the nearest entries of each vector.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, LIBRARY_CHANGED, FIELD_INVALID.
        """
        library = await self._libraries.get(query.library_id, uid=query.library_uid)
        search = _search(library, query)
        bound = bind_filter(library, query.filter)
        if bound is False:
            return QueryResults([[]] * (1 if query.merged else len(search.vectors)))
        self._libraries.index_filtered_fields(library, bound)
        search = replace(search, filter=engine_filter(bound))
        entry_count = (query.entry_count or MAX_LIMIT) if query.include_entries else 0
        async with self._libraries.detect_change(library):
            if query.distinct_entities:
                results = await self._search_distinct(library, search)
            elif query.merged:
                results = [await self._search_merged(library, search, query)]
            else:
                results = await self._storage.search(library.uid, search)
            if entry_count and search.fields is Fields.NONE:
                results = await self._load_first(library, results, entry_count)
        lists = [_hits(library, scored, entry_count) for scored in results]
        shown = [hit.entry for hits in lists for hit in hits[: query.thumbnail_count] if hit.entry]
        return QueryResults(lists, await self._thumbnails.attach(library, shown))

    async def _load_first(
        self, library: Library, results: Sequence[Sequence[ScoredPoint]], count: int
    ) -> list[list[ScoredPoint]]:
        """Load the entries of the first `count` hits of each vector; leave out deleted hits."""
        uids = {hit.uid for hits in results for hit in hits[:count]}
        records = await self._storage.retrieve(library.uid, list(uids), Fields.ENTRY)
        payloads = {record.uid: record.payload for record in records}
        deleted = uids - payloads.keys()
        return [
            [
                hit._replace(payload=payloads.get(hit.uid, hit.payload))
                for hit in hits
                if hit.uid not in deleted
            ]
            for hits in results
        ]

    async def _search_merged(
        self, library: Library, search: Search, query: Query
    ) -> list[ScoredPoint]:
        """Search for all vectors together, without payload."""
        hits_per_vector = min(search.limit, query.merged_hits_per_vector or search.limit)
        breadth = MERGED_BREADTH if len(search.vectors) >= MANY_VECTORS else 1.0
        per_vector = replace(search, limit=hits_per_vector, breadth=breadth)
        return await self._storage.search_merged(library.uid, per_vector, search.limit)

    async def _search_distinct(self, library: Library, search: Search) -> list[list[ScoredPoint]]:
        fields = Fields.ENTITY if search.fields is Fields.NONE else search.fields
        first = replace(search, limit=search.limit * OVER_FETCH, fields=fields)
        results = await self._storage.search(library.uid, first)
        return [
            await self._fill(library, replace(first, vectors=[vector]), hits, search.limit)
            for vector, hits in zip(search.vectors, results, strict=True)
        ]

    async def _fill(
        self, library: Library, search: Search, hits: list[ScoredPoint], limit: int
    ) -> list[ScoredPoint]:
        """Repeat a search without the entities found so far until `limit` entities are found."""
        best: dict[str | bytes, ScoredPoint] = {}
        while True:
            for hit in hits:
                best.setdefault(hit.payload.get("entity_id") or hit.uid, hit)
            if len(best) >= limit or len(hits) < search.limit:
                break
            entities = tuple(name for name in best if isinstance(name, str))
            ids = tuple(
                hit.payload["image_id"] for name, hit in best.items() if isinstance(name, bytes)
            )
            found = any_of(
                Match("entity_id", entities) if entities else False,
                Match("image_id", ids) if ids else False,
            )
            remaining = all_of(True if search.filter is None else search.filter, negate(found))
            (hits,) = await self._storage.search(
                library.uid, replace(search, filter=engine_filter(remaining))
            )
        ranked = sorted(best.values(), key=lambda hit: hit.similarity, reverse=True)
        return ranked[:limit]


def _search(library: Library, query: Query) -> Search:
    _check_options(query)
    # Otherwise the payload is loaded after the search, for the hits that need it and once each.
    has_entries = query.include_entries and not query.entry_count and not query.merged
    return Search(
        space=query.space,
        vectors=_checked_vectors(library, query),
        limit=query.limit or DEFAULT_LIMIT,
        min_similarity=query.min_similarity,
        fields=Fields.ENTRY if has_entries else Fields.NONE,
    )


def _checked_vectors(library: Library, query: Query) -> Sequence[VectorData]:
    space = library.space(query.space)
    if space is None or space.sparse != (query.sparse is not None):
        raise field_error("vectors", f"the library has no such space: {query.space}")
    if query.sparse is not None:
        check_sparse("sparse_vector", query.sparse)
        return [query.sparse]
    _check_dense(space, query.vectors)
    return query.vectors


def _check_dense(space: VectorSpace, vectors: Sequence[bytes]) -> None:
    if not 1 <= len(vectors) <= MAX_VECTORS:
        raise field_error("vectors", f"must have 1 to {MAX_VECTORS} items, not {len(vectors)}")
    check_query_vectors(space, vectors)


def _check_options(query: Query) -> None:
    if query.limit < 0 or query.limit > MAX_LIMIT:
        raise field_error("limit", f"must be 1 to {MAX_LIMIT}, or 0 for {DEFAULT_LIMIT}")
    if query.merged and query.distinct_entities:
        raise field_error("merged", "can't be combined with distinct_entities")
    if query.merged_hits_per_vector < 0:
        raise field_error("merged_hits_per_vector", "must not be negative")
    vector_count = 1 if query.sparse is not None else len(query.vectors)
    if not 0 <= query.thumbnail_count * vector_count <= MAX_THUMBNAILS:
        raise field_error(
            "thumbnail_count", f"must be 0 to {MAX_THUMBNAILS} for all vectors together"
        )
    if query.thumbnail_count and not query.include_entries:
        raise field_error("thumbnail_count", "needs include_entries")
    if query.entry_count < 0:
        raise field_error("entry_count", "must not be negative")
    if query.entry_count and not query.include_entries:
        raise field_error("entry_count", "needs include_entries")


def _hits(library: Library, scored: Sequence[ScoredPoint], entry_count: int) -> list[Hit]:
    """Return hits, the first `entry_count` of them with their entries, without damaged entries."""
    hits: list[Hit] = []
    for row, hit in enumerate(scored):
        entry = read_entry(library, hit.uid, hit.payload) if row < entry_count else None
        if entry is not None or row >= entry_count:
            hits.append(Hit(hit.uid, hit.similarity, entry))
    return hits
