"""Value types of a search for duplicates."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imagesearch_services.gateway.filters import Filter
from imagesearch_services.gateway.model import StoredImage
from imagesearch_services.gateway.scoring.calibration import Threshold

Uid = bytes
"""Uid of an image: 16 bytes."""
UidPair = tuple[Uid, Uid]
"""Uids of two images, ascending."""


class KeepPolicy(enum.IntEnum):
    """Criterion for the image of a group to keep. The values are those of the public contract."""

    LARGEST = 1
    SHARPEST = 2
    OLDEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatesRequest:
    """A checked FindDuplicates request."""

    library_id: str
    filter: Filter | None
    min_score: float | None
    max_false_positive_rate: float | None
    keep: KeepPolicy
    page_token: str
    fingerprints: Mapping[str, str]
    """Fingerprints of the fields that a page token is bound to, by field name."""


@dataclass(frozen=True, slots=True)
class DuplicateImage:
    """A member of a group, as it is stored now."""

    image: StoredImage
    score: float
    """Score against the image to keep; 1 for the image to keep itself."""
    pixels_agree: bool
    """Whether the pixels agree with the image to keep: same file, or aligned thumbnails agree."""


@dataclass(frozen=True, slots=True)
class DuplicatesUpdate:
    """One step of the answer: a group, or progress without a group."""

    group: Sequence[DuplicateImage]
    """The image to keep first; empty: no group."""
    checked_count: int
    total_count: int
    next_page_token: str
    """Token to continue after this update; empty: this is the last update."""
    page_token: str = ""
    """Token to continue with this group, which is then sent again."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group whose image has not been read."""

    uid: Uid
    closeness: float
    """Closeness to the image to keep."""
    pixels_agree: bool


Group = Sequence[Member]
"""The image to keep, then its copies, the closest first."""


@dataclass(frozen=True, slots=True)
class EmbeddingEvidence:
    """Similarity of the embeddings of two images, absolute and relative to their backgrounds."""

    similarity: float
    """Cosine similarity of the embeddings."""
    closeness: float
    """The similarity relative to the lower of the two background similarities."""
    strict_closeness: float
    """The similarity relative to the higher of the two background similarities."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds on the closeness of two images."""

    strict: Threshold
    """Threshold of pairs that are judged by their embeddings alone."""
    loose: Threshold
    """Threshold of pairs whose thumbnails are compared as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanLimits:
    """Bounds on the work and the memory of a scan."""

    page_images: int = 32
    """Number of images that are examined together, between two updates."""
    first_neighbors: int = 16
    """Maximum neighbors in the first search; an image with that many is searched with again."""
    max_neighbors: int = 1001
    """Maximum neighbors in the second search."""
    max_edges: int = 250_000
    """Number of edges above which the exploration of a graph stops, about 30 MB."""
    remembered_pairs: int = 500_000
    """Maximum remembered pairs of non-copies, about 50 MB; a forgotten pair is compared again."""
