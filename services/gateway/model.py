"""Value types that all packages of the Gateway share: libraries, images, hits and embeddings."""

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
    """How a match is related to the query; the values of `imagesearch.gateway.v1.Relation`."""

    UNSPECIFIED = 0
    """Element and product libraries have no relations."""
    SAME = 1
    SIMILAR = 2


@dataclass(frozen=True, slots=True)
class ServedModel:
    """An embedding model as the Embedding service reports it."""

    model: ModelVersion
    dimensions: int
    library_types: frozenset[LibraryType]


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryFields:
    """Fields of a library that the caller sets."""

    display_name: str = ""
    description: str = ""
    capacity: int = 0
    thumbnails_disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLibrary:
    """A library to create."""

    library_id: str
    type: LibraryType
    fields: LibraryFields
    models: Sequence[ServedModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A stored library."""

    library_id: str
    uid: str
    type: LibraryType | int
    """A number of a later version is kept; such a library can be listed, changed and deleted."""
    fields: LibraryFields
    models: Sequence[ModelVersion]
    image_count: int
    unindexed_vector_count: int
    create_time: datetime
    update_time: datetime
    damaged: bool = False
    """Whether stored data is missing or damaged, so that the library is not served."""

    def model(self, role: str) -> ModelVersion | None:
        """Return the model of a role, or None if the library was created without it."""
        return next((model for model in self.models if model.role == role), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFields:
    """Fields of an image that the caller sets."""

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
    """An entry to store in the Catalog."""

    image_id: str
    fields: ImageFields
    region: Box
    info: PictureInfo
    vectors: Sequence[Vector] = ()
    words: SparseVector | None = None
    """Visual words, in element libraries."""
    features: bytes = b""
    """Packed local features, in element libraries; opaque."""
    subject: Subject | None = None
    thumbnail: bytes = b""
    """JPEG of the whole picture; empty if the library stores no thumbnails."""
    warnings: Sequence[str] = ()
    """Problems that did not prevent storing the entry; returned with the image, not stored."""
    allow_overwrite: bool
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """A stored image."""

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
    """Problems that did not prevent storing the image; set only in the answer of adding it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A stored image near a query vector."""

    uid: bytes
    similarity: float
    image: StoredImage | None = None
    """The image with its payload; None unless requested."""
    thumbnail: bytes | ServiceError | None = None
    """Thumbnail, a JPEG file: empty if the image has none, an error if the blob store is
    unavailable, None unless requested."""


@dataclass(frozen=True, slots=True)
class FeaturesHit:
    """A candidate of an element search."""

    uid: bytes
    features: bytes


@dataclass(frozen=True, slots=True)
class DescribedPicture:
    """A picture's local features."""

    info: PictureInfo
    region: Box
    """The described part of the picture."""
    words: SparseVector
    """Visual words of the local features."""
    features: bytes
    """Packed local features; opaque."""
    keypoint_count: int
    thumbnail: bytes = b""
    """JPEG of the whole picture, if requested."""
    vectors: Sequence[Vector] = ()
    """Dense descriptors, if requested: of the described part, then of the windows of a query."""
    shape_words: SparseVector | None = None
    """Visual words of the single-color shapes of a query, for a separate candidate query."""


@dataclass(frozen=True, slots=True)
class FoundElement:
    """A stored element that appears in a query."""

    id: str
    evidence: float
    instances: Sequence[Quadrilateral]
    """Outlines of its occurrences in the query, best first."""


@dataclass(frozen=True, slots=True)
class EmbeddedRegion:
    """A part of a picture and its embeddings, one for each requested space."""

    box: Box
    vectors: Sequence[Vector]
    subject: Subject | None = None
    """Subject of the region, if the model of a requested space classifies it."""


@dataclass(frozen=True, slots=True)
class EmbeddedPicture:
    """The embeddings of a picture or of parts of it."""

    info: PictureInfo
    regions: Sequence[EmbeddedRegion]
    subjects: Sequence[Subject] = ()
    """Detected subjects, the main subject first; empty unless detection was requested."""
    chosen_subject: int | None = None
    """Index of the subject that was embedded."""
    thumbnail: bytes = b""
    """JPEG of the whole picture, if requested."""


@dataclass(frozen=True, slots=True)
class PictureToEmbed:
    """A picture and the parts of it to embed: the whole picture, a region or proposed regions."""

    content: bytes
    region: Box | None = None
    max_proposed_regions: int = 0
    subject_detection: bool = False
    """Embed the main subject instead, if one is found."""
    category: Category | None = None
    """With subject detection: embed the main subject of this category, if one is found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionAnswer:
    """The subjects of a picture."""

    subjects: Sequence[Subject]
    info: PictureInfo
    models: Sequence[ModelVersion]
    timings: Sequence[StepTiming]
    annotated_image: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingOptions:
    """Options of a drawing."""

    media_type: str = ""
    """Media type of the drawing; empty: the default of the Embedding service."""
    max_side_px: int = 0
    """Long side of the drawing, 64 to 4,096 pixels; 0: the default of the Embedding service."""
    match_count: int = 0
    """Number of matches drawn next to the query, 0 to 20."""
    max_bytes: int = 20 * 1024 * 1024
    """Maximum bytes of the drawing. A larger drawing is left out: the answer has to fit in
    32 MiB."""


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
    """A drawing to request from the Embedding service."""

    content: bytes
    outlines: Sequence[Outline]
    matches: Sequence[CaptionedThumbnail]
    """Thumbnails to draw next to the picture."""
    options: DrawingOptions


THUMBNAIL_SIDE_PX = 320
"""Maximum long side of the stored thumbnails, in pixels."""
