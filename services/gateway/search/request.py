"""A search request, independent of the wire format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from imagesearch_services.common.types import Box, Category
from imagesearch_services.gateway.filters import Filter
from imagesearch_services.gateway.model import DrawingOptions, Relation


@dataclass(frozen=True, slots=True)
class PictureQuery:
    """Search with a picture."""

    content: bytes
    region: Box | None = None


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """Search with a stored image of the same library, which is not among its own matches."""

    image_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """A request for the first page or a later page of a search."""

    library_id: str
    query: PictureQuery | StoredQuery | None
    """None is valid only with a page token."""
    filter: Filter | None
    """Includes the condition on the category."""
    page_size: int
    page_token: str = ""
    relations: tuple[Relation, ...] = ()
    """Requested relations, SAME first; empty: SAME."""
    category: Category | None = None
    """Category of the subject to search with, in product libraries."""
    min_score: float | None = None
    max_false_positive_rate: float | None = None
    distinct_entities: bool = False
    subject_detection: bool | None = None
    thumbnail_bytes: int = 0
    """Maximum bytes of all thumbnails in the answer; 0: no thumbnails were requested."""
    drawing: DrawingOptions | None = None
    """Options of the drawing; None: no drawing was requested."""
    field_fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints of the fields that the caller set, except the query and the relations."""

    @property
    def thumbnail_count(self) -> int:
        """Number of first matches whose thumbnails are needed."""
        drawn = 0 if self.drawing is None else self.drawing.match_count
        return max(drawn, self.page_size if self.thumbnail_bytes else 0)
