"""The domain model: libraries and entries. Independent of protobuf, gRPC and the engines."""

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
"""Namespace of entry uids, which are name-based UUIDs (RFC 4122, version 5). Never change it."""

MAX_BATCH = 1000
"""Maximum entries per call."""


def entry_uid(image_id: str) -> bytes:
    """Return the 16 bytes that identify an image id in the engine and in the contract."""
    # Same result as uuid.uuid5, in a tenth of the time: this runs for every entry.
    name = ENTRY_NAMESPACE.bytes + image_id.encode()
    digest = bytearray(hashlib.sha1(name, usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return bytes(digest)


class FieldType(enum.StrEnum):
    """Type of a filterable field; determines its payload index."""

    STRING = "string"
    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"

    @classmethod
    def of(cls, value: TagValue) -> FieldType:
        """Return the type of a value."""
        if isinstance(value, bool):  # before int, its base class
            return cls.BOOLEAN
        if isinstance(value, int):
            return cls.INTEGER
        return cls.FLOAT if isinstance(value, float) else cls.STRING

    def widened(self, other: FieldType) -> FieldType | None:
        """Return the type that holds the values of both; None if there is none.

        Integers and floats are numbers: a field that holds both has the type FLOAT.
        """
        if self is other:
            return self
        numbers = {FieldType.INTEGER, FieldType.FLOAT}
        return FieldType.FLOAT if {self, other} == numbers else None


@dataclass(frozen=True, slots=True)
class VectorSpace:
    """A named vector of a library: dense with cosine, or sparse with dot product and IDF."""

    name: str
    """ "NAME@VERSION" of the model whose vectors it holds."""
    dimensions: int
    """Number of components; 0 for a sparse space."""
    sparse: bool = False
    compact: bool = False
    """Stored with less precision: dense in a quarter of the bits, sparse weights in half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A library without its counts, which come from the engine."""

    library_id: str
    uid: str
    """32 hexadecimal digits; the name of the engine's collection."""
    type: LibraryType | int
    """Kept for the Gateway; a stored number of a later version is kept unchanged."""
    spaces: tuple[VectorSpace, ...]
    models: tuple[ModelVersion, ...] = ()
    display_name: str = ""
    description: str = ""
    capacity: int = 0
    """Maximum number of entries; 0: no limit."""
    thumbnails_disabled: bool = False
    create_time: float = 0.0
    """Seconds since 1970 UTC."""
    update_time: float = 0.0
    """Seconds since 1970 UTC."""
    revision: int = 0
    """Number of times that the record was written; tells which of two copies is newer."""
    tag_types: Mapping[str, FieldType] = field(default_factory=dict)
    """Types of the tags used so far, by name."""
    attribute_names: frozenset[str] = frozenset()
    """Names of the attributes used so far; all values are strings."""
    indexed_fields: frozenset[str] = frozenset()
    """Tags and attributes with a payload index: `tags.NAME`, `attributes.NAME`."""

    def optional_fields(self) -> dict[str, FieldType]:
        """Return the types of the tags and attributes used so far, by field."""
        attributes = {f"attributes.{name}": FieldType.STRING for name in self.attribute_names}
        return attributes | {f"tags.{name}": kind for name, kind in self.tag_types.items()}

    def space(self, name: str) -> VectorSpace | None:
        return next((space for space in self.spaces if space.name == name), None)


@dataclass(frozen=True, slots=True)
class LibraryStats:
    """Current counts of a library."""

    entry_count: int
    unindexed_vector_count: int
    """Vectors that no HNSW graph covers; searches compare them one by one."""
    damaged: bool = False
    """Whether the collection is missing or can't be read; the counts are 0 then."""


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
    """Vectors by space; in answers only if requested."""
    background_similarities: dict[str, float] = field(default_factory=dict)
    """Kept for the Gateway with the vectors, by space."""
    features: bytes = b""
    """Opaque; in answers only if requested."""
    thumbnail: bytes = b""
    """JPEG to store; in answers only if requested."""
    thumbnail_version: str = ""
    """Version of the stored thumbnail; empty: there is no thumbnail."""
    warnings: tuple[str, ...] = ()
    """In the answer to a put: problems that did not prevent storing the entry."""

    @property
    def uid(self) -> bytes:
        return entry_uid(self.image_id)

    def attributes(self) -> dict[str, list[str]]:
        """Return the values that `attributes.NAME` filters match; "color" holds color names."""
        found: dict[str, list[str]] = {}
        if self.subject is not None:
            for attribute in self.subject.attributes:
                found.setdefault(attribute.name, []).append(attribute.value)
            for color in self.subject.colors:
                found.setdefault("color", []).append(color.name)
        return found
