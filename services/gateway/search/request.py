"""A search, as its caller asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from imagesearch_services.common.types import Category
from imagesearch_services.gateway.filters import Filter
from imagesearch_services.gateway.model import DrawingOptions, PictureQuery, Relation, StoredQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """A search, as its caller asked for it."""

    library_id: str
    query: PictureQuery | StoredQuery | None
    """None only beside a page token."""
    filter: Filter | None
    """The category is a part of it."""
    page_size: int
    page_token: str = ""
    relations: tuple[Relation, ...] = ()
    """Those asked for, SAME first; none: SAME."""
    category: Category | None = None
    """Of the subject to search with, in product libraries."""
    min_score: float | None = None
    max_false_positive_rate: float | None = None
    distinct_entities: bool = False
    subject_detection: bool | None = None
    thumbnail_bytes: int = 0
    """How many bytes of small pictures may come with the matches; 0: they were not asked for."""
    drawing: DrawingOptions | None = None
    """How to draw the answer; None: not at all."""
    said: Mapping[str, str] = field(default_factory=dict)
    """Fingerprints of what the caller set, but for the query and relations."""

    @property
    def thumbnail_count(self) -> int:
        """How many of the first matches are shown with small pictures."""
        drawn = 0 if self.drawing is None else self.drawing.match_count
        return max(drawn, self.page_size if self.thumbnail_bytes else 0)
