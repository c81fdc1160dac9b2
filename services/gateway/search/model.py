"""Data of a search in progress: from query vectors to ranked hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.common.types import (
    Box,
    ModelVersion,
    PictureInfo,
    Quadrilateral,
    Subject,
    Vector,
)
from imagesearch_services.gateway.filters import Filter, conjunction, not_image
from imagesearch_services.gateway.model import Library, Relation, StoredImage
from imagesearch_services.gateway.scoring.calibration import Threshold
from imagesearch_services.gateway.search.request import SearchRequest, StoredQuery


@dataclass(slots=True)
class SearchRun:
    """State of one search."""

    request: SearchRequest
    library: Library
    """The cached library at first; later the library with its current image count."""
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    images: dict[bytes, StoredImage] = field(default_factory=dict)
    """Images loaded so far, by uid."""
    thumbnails: dict[str, bytes | ServiceError] = field(default_factory=dict)
    """Thumbnails that came with the hits, by image id."""

    @property
    def filter(self) -> Filter | None:
        """The caller's filter; a stored query excludes itself."""
        if isinstance(self.request.query, StoredQuery):
            return conjunction(self.request.filter, not_image(self.request.query.image_id))
        return self.request.filter


@dataclass(frozen=True, slots=True)
class Query:
    """The embedded query."""

    vectors: Mapping[str, Vector]
    """Query vectors by vector space."""
    region: Box | None = None
    info: PictureInfo | None = None
    subjects: Sequence[Subject] = ()
    chosen_subject: int | None = None
    detection_models: Sequence[ModelVersion] = ()
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Pass:
    """Query vectors of one space that are searched under one threshold."""

    vectors: Sequence[Vector]
    boxes: Sequence[Box | None]
    """Part of the query that each vector describes; None: the whole searched region."""
    threshold: Threshold

    def part(self, rows: Sequence[int]) -> Pass:
        """Return the pass with only the vectors at these indices."""
        return Pass(
            [self.vectors[row] for row in rows], [self.boxes[row] for row in rows], self.threshold
        )


@dataclass(frozen=True, slots=True)
class RankedHit:
    """A stored image whose similarity reaches the threshold."""

    uid: bytes
    relation: Relation
    similarity: float
    closeness: float
    """The similarity relative to the query vector's similarity to unrelated pictures."""
    box: Box | None
    """Part of the query that matched; None: the whole searched region."""
    threshold: Threshold
    instances: Sequence[Quadrilateral] = ()
    """Outlines of the occurrences of an element in the query, best first."""

    @property
    def score(self) -> float:
        return self.threshold.calibration.score(self.closeness)

    @property
    def false_positive_rate(self) -> float:
        return self.threshold.false_positive_rate(self.closeness)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The hits of one relation, best first, each image once."""

    relation: Relation
    threshold: Threshold
    hits: Sequence[RankedHit]
    is_cut: bool = False
    """True if the library may hold more hits."""
    is_distinct: bool = False
    """True if each entity appears at most once, provided the request asks for distinct entities."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a strategy."""

    query: Query
    rankings: Sequence[Ranking]
    """One ranking per relation, in the order of the answer."""
    models: Sequence[ModelVersion]
    """Models whose calibrations produced the scores."""
