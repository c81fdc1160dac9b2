"""What the Gateway speaks of: libraries, images, queries and matches, without a wire format."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.types import (
    Box,
    Category,
    LibraryType,
    ModelVersion,
    PictureInfo,
    Quadrilateral,
    SparseVector,
    StepTiming,
    Subject,
    TagValue,
    Vector,
)


class Relation(enum.IntEnum):
    """How a match is related to the query; the numbers of the contract."""

    UNSPECIFIED = 0
    """In libraries that know no relations."""
    SAME = 1
    SIMILAR = 2


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that embeds, as the Embedding service tells of it."""

    model: ModelVersion
    dimensions: int
    library_types: frozenset[LibraryType]


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryFields:
    """What a caller may say of a library."""

    display_name: str = ""
    description: str = ""
    capacity: int = 0
    thumbnails_disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLibrary:
    """A library to make."""

    library_id: str
    type: LibraryType
    fields: LibraryFields
    models: Sequence[ServedModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A library as the Catalog keeps it."""

    library_id: str
    uid: str
    type: LibraryType
    fields: LibraryFields
    models: Sequence[ModelVersion]
    image_count: int
    unindexed_vector_count: int
    create_time: datetime
    update_time: datetime

    def model(self, role: str) -> ModelVersion | None:
        """The model of a role, if the library was built with one."""
        return next((model for model in self.models if model.role == role), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFields:
    """What a caller may say of an image."""

    entity_id: str = ""
    category: Category | None = None
    tags: Mapping[str, TagValue] = field(default_factory=dict)
    custom_content: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """A picture to add."""

    image_id: str
    content: bytes
    fields: ImageFields
    region: Box | None = None
    subject_detection: bool | None = None
    allow_overwrite: bool = False
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEntry:
    """What the Catalog is given to store of a picture."""

    image_id: str
    fields: ImageFields
    region: Box
    info: PictureInfo
    vectors: Sequence[Vector] = ()
    words: SparseVector | None = None
    """Of an element."""
    features: bytes = b""
    """Of an element; opaque."""
    subject: Subject | None = None
    thumbnail: bytes = b""
    """JPEG of the whole picture; empty: none."""
    warnings: Sequence[str] = ()
    """Not stored, but told of the stored image."""
    allow_overwrite: bool
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image as the Catalog keeps it."""

    library_id: str
    image_id: str
    uid: bytes
    fields: ImageFields
    region: Box | None
    info: PictureInfo
    create_time: datetime
    update_time: datetime
    subject: Subject | None = None
    vectors: Sequence[Vector] = ()
    has_thumbnail: bool = False
    warnings: Sequence[str] = ()
    """What the caller should know though it is stored; only in the answer to adding it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A stored image near a query vector; the image itself only where asked for."""

    uid: bytes
    similarity: float
    image: StoredImage | None = None
    thumbnail: bytes | ServiceError | None = None
    """Its small picture, empty where none is kept, or why it can't be had; None: not asked for."""


@dataclass(frozen=True, slots=True)
class FeaturesHit:
    """A stored element that may appear in a query."""

    uid: bytes
    features: bytes


@dataclass(frozen=True, slots=True)
class DescribedPicture:
    """A picture's local features."""

    info: PictureInfo
    region: Box
    """What of it was described."""
    words: SparseVector
    features: bytes
    """Opaque."""
    keypoint_count: int
    thumbnail: bytes = b""
    """JPEG of the whole picture, where asked for."""
    vectors: Sequence[Vector] = ()
    """By a dense model, where asked for: of what was described, then of a query's windows."""
    shape_words: SparseVector | None = None
    """Of a query's parts in one colour, to be asked for by themselves."""


@dataclass(frozen=True, slots=True)
class FoundElement:
    """A stored element that appears in a query."""

    id: str
    evidence: float
    instances: Sequence[Quadrilateral]
    """Best first."""


@dataclass(frozen=True, slots=True)
class EmbeddedRegion:
    """A part of a picture and its embeddings, one for each space asked."""

    box: Box
    vectors: Sequence[Vector]
    subject: Subject | None = None
    """What it shows, where a model tells."""


@dataclass(frozen=True, slots=True)
class EmbeddedPicture:
    """What embedding a picture gave."""

    info: PictureInfo
    regions: Sequence[EmbeddedRegion]
    subjects: Sequence[Subject] = ()
    """Those that were found, where they were looked for; the main one first."""
    chosen_subject: int | None = None
    """Which of them was embedded."""
    thumbnail: bytes = b""
    """JPEG of the whole picture, where asked for."""


@dataclass(frozen=True, slots=True)
class PictureToEmbed:
    """A picture, and what to embed of it: a region, proposed regions, or all of it."""

    content: bytes
    region: Box | None = None
    max_proposed_regions: int = 0
    subject_detection: bool = False
    """Embed the main subject of it instead, if there is one."""
    category: Category | None = None
    """Of the subject to embed, if there is one of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionAnswer:
    """What a picture shows."""

    subjects: Sequence[Subject]
    info: PictureInfo
    models: Sequence[ModelVersion]
    timings: Sequence[StepTiming]
    annotated_image: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingOptions:
    """How to draw an answer."""

    media_type: str = ""
    """Empty: the Embedding service's default."""
    max_side_px: int = 0
    """64 to 4,096; 0: the Embedding service's default."""
    match_count: int = 0
    """Matches drawn next to the query, 0 to 20."""
    max_bytes: int = 20 * 1024 * 1024
    """A larger drawing is left out: the answer has to fit in 32 MiB."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A shape to draw on a picture, with lines of text."""

    shape: Box | Quadrilateral
    """A box or four corners, in pixels of the picture as shown."""
    lines: Sequence[str] = ()
    is_highlighted: bool = False


@dataclass(frozen=True, slots=True)
class CaptionedThumbnail:
    """A thumbnail with lines of text; an empty frame if `content` is empty."""

    content: bytes
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class DrawingOrder:
    """A drawing that the Embedding service makes."""

    content: bytes
    outlines: Sequence[Outline]
    matches: Sequence[CaptionedThumbnail]
    """Drawn next to the picture."""
    options: DrawingOptions


THUMBNAIL_SIDE_PX = 320
"""Maximum long side of the stored thumbnails, in pixels."""
