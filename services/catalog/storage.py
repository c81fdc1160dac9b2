"""The interface of a storage backend: collections of points with vectors and payload.

Both backends (`edge`, `cluster`) implement `Storage`, and the contract tests run on both. A failed
backend raises `ServiceError` with STORAGE_UNAVAILABLE; any other exception is a bug in this
service.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

import numpy as np

from imagesearch_services.catalog.filters import Filter
from imagesearch_services.catalog.model import FieldType, VectorData, VectorSpace
from imagesearch_services.common.errors import Reason, ServiceError

Payload = dict[str, Any]
"""JSON-like values: str, int (64 bits), float, bool, None, and lists and dicts of these."""

FEATURES_KEY = "features"
"""Payload key of the entry's features, a large blob that is read only on request."""

CHECKSUM_KEY = "checksum"
"""Payload key of the checksum of all keys but the features."""

FEATURES_CHECKSUM_KEY = "features_crc"
"""Payload key of the checksum of the features."""

UNREADABLE_KEY = "unreadable"
"""Payload key of a point whose payload the engine can't read; it has no other keys."""

THUMBNAIL_KEY = "thumbnail"
"""Payload key of the thumbnail's version."""


class Fields(enum.Enum):
    """The part of the payload to read."""

    NONE = enum.auto()
    ENTITY = enum.auto()
    """Only `entity_id` and `image_id`."""
    THUMBNAIL = enum.auto()
    """Only the thumbnail's version."""
    FEATURES = enum.auto()
    """Only the features and their checksum."""
    TAGS = enum.auto()
    """Only the tags."""
    ENTRY = enum.auto()
    """All but the features."""
    ALL = enum.auto()


class Point(NamedTuple):
    """A point to write."""

    uid: bytes
    """Id of the point, 16 bytes."""
    vectors: Mapping[str, VectorData]
    """Vectors by the name of their space."""
    payload: Payload


class Record(NamedTuple):
    """A point as read; `payload` and `vectors` are empty unless requested."""

    uid: bytes
    payload: Payload
    vectors: dict[str, VectorData]
    """Vectors by the name of their space."""


class ScoredPoint(NamedTuple):
    """A hit of a search."""

    uid: bytes
    similarity: float
    payload: Payload


class CollectionStats(NamedTuple):
    """Current counts of a collection."""

    point_count: int
    unindexed_vector_count: int
    """Approximate number of vectors outside the HNSW index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search for the points nearest to each of several vectors of one space."""

    space: str
    vectors: Sequence[VectorData]
    limit: int
    """Maximum hits per vector."""
    filter: Filter | None = None
    min_similarity: float | None = None
    """Minimum similarity of a hit, inclusive; None: no minimum."""
    fields: Fields = Fields.NONE
    breadth: float = 1.0
    """Breadth of the HNSW search, as a share of the configured `ef`."""

    def ef(self, configured_ef: int) -> int:
        """Return `ef` of the HNSW search: the number of candidates it keeps."""
        return max(self.limit, round(configured_ef * self.breadth))

    @property
    def exclusive_min_similarity(self) -> float | None:
        """The largest float32 below `min_similarity`: Qdrant excludes hits at its threshold."""
        if self.min_similarity is None:
            return None
        return float(np.nextafter(np.float32(self.min_similarity), np.float32(-np.inf)))


def has_links(field: str, field_type: FieldType) -> bool:
    """Return whether the HNSW graph gets extra links for the values of an indexed field.

    Extra links keep filtered searches fast, but those of one field take as long to build as the
    graph itself. They pay off for categories and names, not for numbers and unique values.
    """
    if field in {"image_id", "sha256"}:
        return False
    return field == "category" or field_type in {FieldType.STRING, FieldType.BOOLEAN}


class FolderLockedError(Exception):
    """The data folder is in use by another Catalog."""


class NewerFormatError(Exception):
    """A later version wrote the stored data."""


class CollectionDamagedError(Exception):
    """The files of a collection are missing or can't be read."""


class FoundCollection(NamedTuple):
    """A collection that the backend holds, whether or not the metadata names it."""

    name: str
    problem: str
    """Why the collection can't be served; empty if nothing is known to be wrong."""
    record: Payload | None
    """The copy of its library's record that is kept with the collection; None: none, or damaged."""


class Storage(Protocol):
    """Collections on an engine."""

    exclusive: bool
    """Whether no other process writes to the collections, so that their content may be cached."""

    parallel_calls: int
    """Maximum concurrent storage calls of one request. It is 1 for an engine that runs calls one
    after another: otherwise other requests would queue behind all calls of this one."""

    damaged_error: Callable[[str], ServiceError]
    """Returns the error of a call on a damaged collection, whose name is the argument."""

    async def start(self) -> None:
        """Open the engine.

        Raises:
            FolderLockedError: the data folder is in use.
            NewerFormatError: a later version wrote the data folder.
        """

    async def read_identity(self) -> str:
        """Return the id of the installation that is kept beside the metadata; empty: unknown."""

    async def write_identity(self, installation_id: str) -> None:
        """Keep the id of the installation beside the metadata, if the backend has files."""

    async def check(self) -> None:
        """Check that the engine answers.

        Raises:
            ServiceError: STORAGE_UNAVAILABLE.
        """

    async def check_space(self) -> None:
        """Check that there is space for a write other than a deletion.

        Raises:
            ServiceError: STORAGE_FULL.
        """

    async def close(self) -> None:
        """Release the engine. Acknowledged writes are already durable."""

    async def create_collection(
        self, name: str, spaces: Sequence[VectorSpace], indexes: Mapping[str, FieldType]
    ) -> None:
        """Create an empty collection, unless it exists."""

    async def drop_collection(self, name: str) -> None:
        """Remove a collection and its content, if it exists."""

    async def survey(self) -> list[FoundCollection]:
        """Return all collections; remove the unfinished copies that a crash left in them."""

    async def set_aside(self, name: str) -> str:
        """Move a collection out of use without deleting anything; return where it is now.

        Returns an empty string if the backend leaves the collection in its place.
        """

    async def bring_back(self, name: str) -> bool:
        """Move a collection that was set aside back into use; return whether there was one."""

    async def write_record(self, name: str, record: Payload) -> None:
        """Keep a copy of a library's record with its collection, if the backend has files."""

    async def create_index(self, name: str, field: str, field_type: FieldType) -> None:
        """Create the index of a payload field, unless it exists."""

    async def drop_index(self, name: str, field: str) -> None:
        """Remove the index of a payload field, if it exists."""

    async def stats(self, name: str) -> CollectionStats:
        """Return the counts of a collection."""

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Write all points or none, replacing those that exist; durable on return."""

    async def set_payload(self, name: str, uid: bytes, payload: Payload) -> None:
        """Replace the whole payload of an existing point; durable on return."""

    async def delete(self, name: str, uids: Sequence[bytes]) -> None:
        """Remove the points that exist; durable on return."""

    async def retrieve(
        self, name: str, uids: Sequence[bytes], fields: Fields, *, vectors: bool = False
    ) -> list[Record]:
        """Read the points that exist, in any order."""

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
        """Read up to `limit` points with uids above `after`, in ascending order."""

    async def count(self, name: str, where: Filter | None) -> int:
        """Count points exactly."""

    async def search(self, name: str, search: Search) -> list[list[ScoredPoint]]:
        """Return the nearest points of each vector, best first."""

    async def search_merged(self, name: str, search: Search, limit: int) -> list[ScoredPoint]:
        """Return the points nearest to any of the vectors, without duplicates, best first.

        Only the first `search.limit` hits of each vector are merged.
        """


def merge_hits(hits: Iterable[ScoredPoint], limit: int) -> list[ScoredPoint]:
    """Return the best hits; a point that several vectors found is kept with its best hit."""
    best: dict[bytes, ScoredPoint] = {}
    for hit in sorted(hits, key=attrgetter("similarity"), reverse=True):
        if len(best) == limit:
            break
        best.setdefault(hit.uid, hit)
    return list(best.values())


def damaged_error(name: str) -> ServiceError:
    """Return the error of a call on a damaged collection that belongs to no known library."""
    return ServiceError(Reason.LIBRARY_DAMAGED, f"the stored data of collection {name} is damaged")


def storage_full() -> ServiceError:
    """Return the error for a write that was refused, and changed nothing, on a full disk."""
    return ServiceError(
        Reason.STORAGE_FULL, "the disk of the storage engine is full; free space on it"
    )


def storage_error(message: str = "the storage engine does not answer") -> ServiceError:
    """Return the error for a failed engine. The cause is logged and not returned to the caller."""
    return ServiceError(Reason.STORAGE_UNAVAILABLE, message)
