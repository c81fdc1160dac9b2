"""The words of the domain: libraries, entries, and what is in them.

Nothing here knows protobuf, gRPC or an engine.
"""

from __future__ import annotations

import enum
import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from imagesearch_services.common.types import (
    Box,
    Category,
    LibraryType,
    ModelVersion,
    PictureInfo,
    SparseVector,
    Subject,
    TagValue,
)

ENTRY_NAMESPACE = uuid.UUID("6f9f0c52-7d0f-5c7e-9a37-0d6c2f6b8a11")
"""Fixed for ever: entry uids are name-based UUIDs (RFC 4122, version 5) in this namespace."""


def entry_uid(image_id: str) -> bytes:
    """Return the 16 bytes that stand for an image id, in the engine and in the contract."""
    # uuid.uuid5 written out: on the way of every entry, and a tenth of the time.
    name = ENTRY_NAMESPACE.bytes + image_id.encode()
    digest = bytearray(hashlib.sha1(name, usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return bytes(digest)


class FieldType(enum.StrEnum):
    """Type of a filterable field; decides its payload index."""

    STRING = "string"
    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"

    @classmethod
    def of(cls, value: TagValue) -> FieldType:
        """Return the type of a value; bool before int, of which Python makes it a kind."""
        if isinstance(value, bool):
            return cls.BOOLEAN
        if isinstance(value, int):
            return cls.INTEGER
        return cls.FLOAT if isinstance(value, float) else cls.STRING


@dataclass(frozen=True, slots=True)
class VectorSpace:
    """A named vector of a library: dense with cosine, or sparse with dot product and IDF."""

    name: str
    """ "NAME@VERSION" of the model that fills it."""
    dimensions: int
    """Components; 0 where sparse."""
    sparse: bool = False
    compact: bool = False
    """Kept in a quarter of the bits, sparse weights in half, at the price of some exactness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A library as it is kept; its counts come from the engine."""

    library_id: str
    uid: str
    """32 hexadecimal digits; names the engine's collection."""
    type: LibraryType | int
    """Kept for the Gateway; a number that only a later version knows is kept as it is."""
    spaces: tuple[VectorSpace, ...]
    models: tuple[ModelVersion, ...] = ()
    display_name: str = ""
    description: str = ""
    capacity: int = 0
    """Most entries; 0: no limit."""
    thumbnails_disabled: bool = False
    create_time: float = 0.0
    """Seconds since 1970 UTC."""
    update_time: float = 0.0
    """Seconds since 1970 UTC."""
    tag_types: Mapping[str, FieldType] = field(default_factory=dict)
    """Types of the tags used so far, fixed by their first use."""
    attribute_names: frozenset[str] = frozenset()
    """Attributes used so far; all are strings."""

    def space(self, name: str) -> VectorSpace | None:
        return next((space for space in self.spaces if space.name == name), None)


@dataclass(frozen=True, slots=True)
class LibraryStats:
    """Counts of a library, now."""

    entry_count: int
    unindexed_vector_count: int
    """Vectors that are compared one by one since no HNSW graph covers them."""


VectorData = bytes | SparseVector
"""A dense vector as IEEE-754 single precision, little-endian; or a sparse vector."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """A stored picture."""

    image_id: str
    entity_id: str = ""
    category: Category | None = None
    tags: dict[str, TagValue] = field(default_factory=dict)
    custom_content: str = ""
    region: Box | None = None
    subject: Subject | None = None
    info: PictureInfo | None = None
    create_time: float = 0.0
    """Seconds since 1970 UTC, whole microseconds."""
    update_time: float = 0.0
    """Seconds since 1970 UTC, whole microseconds."""
    vectors: dict[str, VectorData] = field(default_factory=dict)
    """By space; filled in answers only when asked."""
    background_similarities: dict[str, float] = field(default_factory=dict)
    """Kept for the Gateway beside its vectors, by space."""
    features: bytes = b""
    """Opaque; filled in answers only when asked."""
    thumbnail: bytes = b""
    """Small picture to keep; never in answers."""
    thumbnail_version: str = ""
    """Which small picture is kept; empty: none."""
    warnings: tuple[str, ...] = ()
    """In the answer to a put: what the caller should know though it was stored."""

    @property
    def uid(self) -> bytes:
        return entry_uid(self.image_id)

    def attributes(self) -> dict[str, list[str]]:
        """Return what `attributes.NAME` filters see; colour names stand under "color"."""
        found: dict[str, list[str]] = {}
        if self.subject is not None:
            for attribute in self.subject.attributes:
                found.setdefault(attribute.name, []).append(attribute.value)
            for color in self.subject.colors:
                found.setdefault("color", []).append(color.name)
        return found
