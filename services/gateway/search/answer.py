"""A search answer, independent of the wire format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.types import (
    Box,
    ModelVersion,
    PictureInfo,
    Quadrilateral,
    StepTiming,
    Subject,
)
from imagesearch_services.gateway.model import Relation, StoredImage


@dataclass(frozen=True, slots=True)
class AppliedThreshold:
    """The lowest score that counted as a match of a relation."""

    relation: Relation
    min_score: float
    false_positive_rate: float
    extrapolated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A stored image that answers a query."""

    image: StoredImage
    relation: Relation
    score: float
    similarity: float
    false_positive_rate: float
    query_box: Box | None
    """Part of the query that matched; None: the whole searched region."""
    instances: Sequence[Quadrilateral] = ()
    """Outlines of all occurrences of an element in the query, best first."""
    thumbnail: bytes = b""
    """JPEG file, if requested and stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchAnswer:
    """A page of matches, and what the search reports about its query, thresholds and steps."""

    matches: Sequence[Match]
    next_page_token: str
    total_found: int
    total_is_lower_bound: bool
    searched_region: Box | None
    query_info: PictureInfo | None
    models: Sequence[ModelVersion]
    thresholds: Sequence[AppliedThreshold]
    timings: Sequence[StepTiming]
    subjects: Sequence[Subject] = ()
    """Subjects of the query, the main subject first."""
    chosen_subject: int | None = None
    """Index of the subject that was searched with."""
    warnings: Sequence[str] = ()
    annotated_image: bytes = b""
    """Drawing, if requested."""
    thumbnails: Mapping[str, bytes | ServiceError] = field(default_factory=dict)
    """Thumbnails that came with the hits, by image id: empty if the image has no thumbnail, an
    error if the blob store did not return it."""
    first_rank: int = 1
    """Rank of the page's first match among all matches, from 1."""
