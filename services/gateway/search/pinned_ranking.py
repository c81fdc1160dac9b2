"""The ranking of a search as later pages need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imagesearch_services.common.types import Box, PictureInfo, Quadrilateral, Subject
from imagesearch_services.gateway.model import Relation
from imagesearch_services.gateway.search.answer import AppliedThreshold


@dataclass(frozen=True, slots=True)
class PinnedMatch:
    """A match of a later page."""

    uid: bytes
    relation: Relation
    score: float
    similarity: float
    false_positive_rate: float
    region: int | None
    """Index in the regions of the ranking; None: the whole query matched."""
    instances: Sequence[Quadrilateral] = ()
    """Outlines of the occurrences of an element in the query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedRanking:
    """The ranking of a search, without the matches of earlier pages."""

    library_id: str
    library_uid: str
    request: Mapping[str, str]
    """Fingerprints of the first request's fields; later requests may omit but not change them."""
    total_found: int
    total_is_lower_bound: bool
    searched_region: Box | None
    query_info: PictureInfo | None
    subjects: Sequence[Subject] = ()
    chosen_subject: int | None = None
    warnings: Sequence[str] = ()
    thresholds: Sequence[AppliedThreshold]
    regions: Sequence[Box]
    matches: Sequence[PinnedMatch]
    expires_at_s: float = 0.0
    """Seconds since 1970 UTC; set in the first token of a search and kept in the next ones."""
