"""Fuses the evidence for elements: local features, shapes and regional similarity.

Each of the three finds elements that the others miss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.elements.features import QueryFeatures, StoredElement
from imagesearch_services.embedding.elements.regional import (
    NearestWindow,
    Regional,
    nearest_windows,
    unpack_regional,
)
from imagesearch_services.embedding.elements.rules import Rules
from imagesearch_services.embedding.elements.verification import Verified, verify
from imagesearch_services.embedding.elements.vocabulary import Vocabulary

FULL_SPREAD = 0.3
"""Spread above which inliers count in full; below it, their weight is reduced in proportion."""
SHARE_WEIGHT = 0.3
"""Weight of the logarithm of the share of an element's keypoints that are inliers."""
MIN_KEYPOINTS = 20
"""Lower bound of the number of keypoints that this share is relative to."""
SHAPE_WEIGHT, SHAPE_BIAS = 3.5, -1.5
"""Slope and intercept of the map from a shape's closeness to evidence, on the scale of the evidence
of local features with the same false positive rate."""
REGIONAL_WEIGHT = 4.0
"""Weight of the regional similarity."""
UNVERIFIED = -1.0
"""Evidence of local features or shapes that do not agree."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored element that may appear in a query."""

    id: str
    features: bytes


@dataclass(frozen=True, slots=True)
class Appearance:
    """A position where an element appears."""

    corners: npt.NDArray[np.float64]
    """Corners in the picture as shown, pixels, clockwise from the element's own top left, [4, 2].
    """
    inlier_count: int
    """Number of inlier matches; 0 for an appearance by shape or by window."""


@dataclass(frozen=True, slots=True)
class FoundElement:
    """An element that appears in a picture."""

    id: str
    evidence: float
    appearances: Sequence[Appearance]
    """Positions of the element, best first."""


@dataclass(frozen=True, slots=True)
class _Deserialized:
    """Local and regional features of a query and of its candidates."""

    query: QueryFeatures
    elements: Sequence[StoredElement]
    regional: Regional | None
    """Regional features of the query."""
    nearest: Sequence[NearestWindow | None]
    """The query's nearest window to each candidate; None if it is unknown."""

    @classmethod
    def of(
        cls, raw: bytes, candidates: Sequence[Candidate], vocabulary: Vocabulary
    ) -> _Deserialized:
        field = "query_features"
        local, query_regional = unpack_regional(raw, field=field)
        query = QueryFeatures.from_bytes(local, vocabulary.components, field=field)
        elements, regional = [], []
        for row, candidate in enumerate(candidates):
            field = f"candidates[{row}].features"
            local, element_regional = unpack_regional(candidate.features, field=field)
            elements.append(StoredElement.from_bytes(local, vocabulary.code_bytes, field=field))
            regional.append(element_regional)
        return cls(query, elements, query_regional, nearest_windows(query_regional, regional))


def find_elements(
    raw: bytes, candidates: Sequence[Candidate], vocabulary: Vocabulary, rules: Rules
) -> list[FoundElement]:
    """Find the candidates that appear in a query, best first.

    Args:
        raw: the query's serialized features.
        candidates: stored elements.
        vocabulary: vocabulary that describes both.
        rules: thresholds of the geometric verification.

    Raises:
        ServiceError: FIELD_INVALID if features can't be deserialized.
    """
    features = _Deserialized.of(raw, candidates, vocabulary)
    similarities = [None if window is None else window.similarity for window in features.nearest]
    known_similarities = [similarity or 0.0 for similarity in similarities]
    verified_by_row = {
        verified.row: verified
        for verified in verify(
            features.query, features.elements, vocabulary, rules, known_similarities
        )
    }
    found = []
    for row, candidate in enumerate(candidates):
        if row in verified_by_row:
            element, verified = features.elements[row], verified_by_row[row]
            total = evidence(element, verified, similarities[row])
            located = _to_picture(features.query, appearances(element, verified))
            found.append(FoundElement(candidate.id, total, located))
        elif (by_window := _found_by_window(features, row, candidate.id)) is not None:
            found.append(by_window)
    return sorted(found, key=lambda element: (-element.evidence, element.id))


def evidence(
    element: StoredElement, verified: Verified, regional_similarity: float | None
) -> float:
    """Return the larger of the local and the shape evidence, plus the regional evidence."""
    local, shape = _local_evidence(element, verified), _shape_evidence(verified)
    return max(local, shape) + REGIONAL_WEIGHT * (regional_similarity or 0.0)


def _local_evidence(element: StoredElement, verified: Verified) -> float:
    """Return the evidence of the best instance.

    Inliers in a small part of the element count less, since two packages may share a printed word.
    Inliers count more if they are a large share of the element's keypoints.
    """
    if not verified.instances:
        return UNVERIFIED
    best = verified.instances[0]
    log_weight = math.log1p(best.weight * min(1.0, best.spread / FULL_SPREAD))
    share = min(1.0, best.inlier_count / max(len(element.keypoints), MIN_KEYPOINTS))
    return log_weight + SHARE_WEIGHT * math.log(share)


def _shape_evidence(verified: Verified) -> float:
    if not verified.outlines:
        return UNVERIFIED
    return SHAPE_BIAS + SHAPE_WEIGHT * verified.outlines[0].closeness


def _found_by_window(features: _Deserialized, row: int, element_id: str) -> FoundElement | None:
    """Locate an unverified element at its nearest window; None if the window is unknown.

    Elements without keypoints are excluded: to a dense model, all uniform colors are alike.
    """
    window = features.nearest[row]
    if window is None or features.regional is None or not len(features.elements[row].keypoints):
        return None
    box = Box(*map(float, features.regional.boxes[window.row]))
    return FoundElement(
        element_id,
        UNVERIFIED + REGIONAL_WEIGHT * window.similarity,
        [Appearance(box_corners(box), inlier_count=0)],
    )


def appearances(element: StoredElement, verified: Verified) -> list[Appearance]:
    """Return the positions of an element in the query's working image, best first.

    Appearances by local features and by shape are merged; of two at the same position, the one of
    the weaker kind is dropped.
    """
    by_features = [Appearance(pose.corners, pose.inlier_count) for pose in verified.instances]
    by_shape = [Appearance(outline.corners, 0) for outline in verified.outlines]
    first, second = by_features, by_shape
    if _shape_evidence(verified) > _local_evidence(element, verified):
        first, second = by_shape, by_features
    return first + [
        appearance
        for appearance in second
        if not any(_is_same_position(appearance, other) for other in first)
    ]


def _is_same_position(appearance: Appearance, other: Appearance) -> bool:
    radius = np.ptp(other.corners, axis=0).max() / 2
    distance = np.linalg.norm(appearance.corners.mean(axis=0) - other.corners.mean(axis=0))
    return bool(distance < radius)


def _to_picture(query: QueryFeatures, found: Sequence[Appearance]) -> list[Appearance]:
    """Convert corners from the query's working image to the picture as shown."""
    region = query.region
    factors = np.array([region.width / query.width, region.height / query.height])
    origin = np.array([region.x_min, region.y_min])
    return [
        Appearance(appearance.corners * factors + origin, appearance.inlier_count)
        for appearance in found
    ]


def box_corners(box: Box) -> npt.NDArray[np.float64]:
    """Return the corners of a box, clockwise from the top left, [4, 2]."""
    left, top, right, bottom = box
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
