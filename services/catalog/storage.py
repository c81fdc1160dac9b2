"""What the Catalog asks of an engine: collections of points with vectors, payload and indexes.

Both backends (`edge.py`, `cluster.py`) keep this contract, and one test suite holds them to it.
Failures of the engine are `ServiceError(STORAGE_UNAVAILABLE)`; everything else is a fault in
our code.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from imagesearch_services.catalog.filters import Filter
from imagesearch_services.catalog.model import FieldType, VectorData, VectorSpace
from imagesearch_services.common.errors import Reason, ServiceError

Payload = dict[str, Any]
"""JSON-like: str, int (64 bit), float, bool, None, lists and dicts of them."""

FEATURES_KEY = "features"
"""Payload key of the large blob that is left out unless it is asked for."""

THUMBNAIL_KEY = "thumbnail"
"""Payload key of the version of the small picture."""


class Fields(enum.Enum):
    """Which payload to give back."""

    NONE = enum.auto()
    ENTITY = enum.auto()
    """Only `entity_id` and `image_id`."""
    THUMBNAIL = enum.auto()
    """Only which blob is the small picture."""
    FEATURES = enum.auto()
    """Only the features."""
    ENTRY = enum.auto()
    """All but the features."""
    ALL = enum.auto()


class Point(NamedTuple):
    """What is stored: 16 bytes of id, vectors by space, payload."""

    uid: bytes
    vectors: Mapping[str, VectorData]
    payload: Payload


class Record(NamedTuple):
    """What is read; `payload` and `vectors` are empty where they were not asked for."""

    uid: bytes
    payload: Payload
    vectors: dict[str, VectorData]


class Scored(NamedTuple):
    """A hit of a search."""

    uid: bytes
    similarity: float
    payload: Payload


class CollectionStats(NamedTuple):
    """Counts of a collection, now."""

    point_count: int
    unindexed_vector_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One search for several vectors of one space."""

    space: str
    vectors: Sequence[VectorData]
    limit: int
    filter: Filter | None = None
    min_similarity: float | None = None
    """Inclusive."""
    fields: Fields = Fields.NONE
    breadth: float = 1.0
    """Of the search in the HNSW graph, as a share of the usual."""

    def ef(self, usual: int) -> int:
        """Give the `ef` of the search: how many nodes of the graph it keeps in view."""
        return max(self.limit, round(usual * self.breadth))


def has_links(field: str, field_type: FieldType) -> bool:
    """Tell whether an index gives its values links of their own in the HNSW graph.

    They keep filtered searches quick, and cost as much to build as the graph itself, once for
    each field: worth it for kinds and names, not for numbers and for what tells one entry.
    """
    if field in {"image_id", "sha256"}:
        return False
    return field == "category" or field_type in {FieldType.STRING, FieldType.BOOLEAN}


class FolderLockedError(Exception):
    """The data folder is another Catalog's."""


class Storage(Protocol):
    """An engine with its collections."""

    exclusive: bool
    """No other process writes here, so what was written by us may be remembered."""

    parallel_calls: int
    """Maximum storage calls that one request makes at the same time. An engine that runs one call
    after another has 1: otherwise calls of other requests would queue behind all of them."""

    async def start(self) -> None:
        """Open the engine; raises where it can't be had."""

    async def check(self) -> None:
        """Raise while the engine does not answer."""

    async def close(self) -> None:
        """Give the engine back; everything written is safe already."""

    async def create_collection(
        self, name: str, spaces: Sequence[VectorSpace], indexes: Mapping[str, FieldType]
    ) -> None:
        """Make an empty collection; one of that name that is there already is taken as made."""

    async def drop_collection(self, name: str) -> None:
        """Remove a collection and all in it; none of that name is no error."""

    async def keep_only(self, names: frozenset[str]) -> None:
        """Remove what a crash left behind, where the engine belongs to us alone."""

    async def create_index(self, name: str, field: str, field_type: FieldType) -> None:
        """Index a payload field; one that is there already is no error."""

    async def stats(self, name: str) -> CollectionStats:
        """Count points exactly and unindexed vectors about."""

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Write points whole, all of them or none; durable on return."""

    async def set_payload(self, name: str, uid: bytes, payload: Payload) -> None:
        """Replace all payload of a point that is there; durable on return."""

    async def delete(self, name: str, uids: Sequence[bytes]) -> None:
        """Remove points; those that are not there are no error; durable on return."""

    async def retrieve(
        self, name: str, uids: Sequence[bytes], fields: Fields, *, vectors: bool = False
    ) -> list[Record]:
        """Read points by id, in any order; those that are not there are left out."""

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
        """Read up to `limit` points by ascending id, beginning after one."""

    async def count(self, name: str, where: Filter | None) -> int:
        """Count points exactly."""

    async def search(self, name: str, search: Search) -> list[list[Scored]]:
        """Find the nearest points of each vector, best first."""

    async def search_merged(self, name: str, search: Search, limit: int) -> list[Scored]:
        """Find the points nearest to any of the vectors, each once, best first.

        Of each vector the first `search.limit` take part.
        """


def merged(hits: Iterable[Scored], limit: int) -> list[Scored]:
    """Take each point once, at its best, and the best of these."""
    best: dict[bytes, Scored] = {}
    for hit in sorted(hits, key=attrgetter("similarity"), reverse=True):
        if len(best) == limit:
            break
        best.setdefault(hit.uid, hit)
    return list(best.values())


def storage_error(message: str = "the storage engine does not answer") -> ServiceError:
    """Say that the engine failed, without its own words: those go to the log."""
    return ServiceError(Reason.STORAGE_UNAVAILABLE, message)
