"""What speaks for an element, weighed together, and where it appears.

Its features, its shape and the likeness of regions each find elements that the others miss.
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
    Regional,
    likeness,
    without_regional,
)
from imagesearch_services.embedding.elements.verification import Rules, Verified, verify
from imagesearch_services.embedding.elements.vocabulary import Vocabulary

FULL_SPREAD = 0.3
"""Matches that are spread over so much of an element count in full."""
SHARE_WEIGHT = 0.3
"""Of the logarithm of the share of an element's features that match."""
FEWEST_KEYPOINTS = 20
"""Elements with fewer are judged as if they had so many."""
SHAPE_WEIGHT, SHAPE_START = 3.5, -1.5
"""Of how close a shape is, as much as features that are as seldom wrong."""
REGIONAL_WEIGHT = 4.0
"""Of the similarity of regions beside the logarithm of what the features say."""
UNVERIFIED = -1.0
"""What the features say where none agree."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored element that may appear."""

    id: str
    features: bytes


@dataclass(frozen=True, slots=True)
class Appearance:
    """A place where an element appears."""

    corners: npt.NDArray[np.float64]
    """In the picture as shown, pixels, clockwise from the element's own top left, [4, 2]."""
    inlier_count: int


@dataclass(frozen=True, slots=True)
class FoundElement:
    """An element that appears in a picture."""

    id: str
    evidence: float
    appearances: Sequence[Appearance]
    """Best first."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A query and candidates, and how alike they are by a dense model."""

    query: QueryFeatures
    elements: Sequence[StoredElement]
    regional: Regional | None
    likeness: Sequence[tuple[float, int] | None]
    """Of each candidate, and to which of the query's windows."""

    @classmethod
    def of(cls, raw: bytes, candidates: Sequence[Candidate], vocabulary: Vocabulary) -> _Read:
        field = "query_features"
        raw, query_regional = without_regional(raw, field=field)
        query = QueryFeatures.from_bytes(raw, vocabulary.components, field=field)
        elements, regional = [], []
        for row, one in enumerate(candidates):
            field = f"candidates[{row}].features"
            local, dense = without_regional(one.features, field=field)
            elements.append(StoredElement.from_bytes(local, vocabulary.code_bytes, field=field))
            regional.append(dense)
        return cls(query, elements, query_regional, likeness(query_regional, regional))


def find(
    raw: bytes, candidates: Sequence[Candidate], vocabulary: Vocabulary, rules: Rules
) -> list[FoundElement]:
    """Say which candidates appear in a query, best first.

    Args:
        raw: the query's features.
        candidates: stored elements.
        vocabulary: of both.
        rules: what counts.

    Raises:
        ServiceError: FIELD_INVALID, where features can't be read.
    """
    read = _Read.of(raw, candidates, vocabulary)
    similarities = [None if alike is None else alike[0] for alike in read.likeness]
    known = [similarity or 0.0 for similarity in similarities]
    verified = {one.row: one for one in verify(read.query, read.elements, vocabulary, rules, known)}
    found = []
    for row, candidate in enumerate(candidates):
        if row in verified:
            element = read.elements[row]
            weight = evidence(element, verified[row], similarities[row])
            appearances = _appearances(read.query, places(element, verified[row]))
            found.append(FoundElement(candidate.id, weight, appearances))
        elif (alike := _alike(read, row, candidate.id)) is not None:
            found.append(alike)
    return sorted(found, key=lambda one: (-one.evidence, one.id))


def evidence(
    element: StoredElement, verified: Verified, regional_similarity: float | None
) -> float:
    """Weigh what speaks for an element: its features or its shape, and the likeness of regions."""
    local, shape = _local_evidence(element, verified), _shape_evidence(verified)
    return max(local, shape) + REGIONAL_WEIGHT * (regional_similarity or 0.0)


def _local_evidence(element: StoredElement, verified: Verified) -> float:
    """Weigh the best instance.

    Matches that crowd in a small part of the element count less: two packages may share a word. And
    those count more that explain a large share of what the element has.
    """
    if not verified.instances:
        return UNVERIFIED
    best = verified.instances[0]
    nearer = math.log1p(best.weight * min(1.0, best.spread / FULL_SPREAD))
    share = min(1.0, best.inlier_count / max(len(element.keypoints), FEWEST_KEYPOINTS))
    return nearer + SHARE_WEIGHT * math.log(share)


def _shape_evidence(verified: Verified) -> float:
    if not verified.outlines:
        return UNVERIFIED
    return SHAPE_START + SHAPE_WEIGHT * verified.outlines[0].closeness


def _alike(read: _Read, row: int, element_id: str) -> FoundElement | None:
    """Say where an element appears of which no features agree: where the window is that is like it.

    None where there is no such window.
    """
    nearest = read.likeness[row]
    is_plain = not len(read.elements[row].keypoints)  # as like one plain color as another
    if nearest is None or read.regional is None or is_plain:
        return None
    similarity, window = nearest
    box = Box(*map(float, read.regional.boxes[window]))
    return FoundElement(
        element_id,
        UNVERIFIED + REGIONAL_WEIGHT * similarity,
        [Appearance(corners_of(box), inlier_count=0)],
    )


def places(element: StoredElement, verified: Verified) -> list[Appearance]:
    """Give where an element was found, in the query's working size; best first.

    What its shape tells and what its features tell are joined, but for the same place told twice.
    """
    by_features = [Appearance(one.corners, one.inlier_count) for one in verified.instances]
    by_shape = [Appearance(one.corners, 0) for one in verified.outlines]
    first, second = by_features, by_shape
    if _shape_evidence(verified) > _local_evidence(element, verified):
        first, second = by_shape, by_features
    return first + [one for one in second if not any(_same_place(one, each) for each in first)]


def _same_place(one: Appearance, other: Appearance) -> bool:
    reach = np.ptp(other.corners, axis=0).max() / 2
    apart = np.linalg.norm(one.corners.mean(axis=0) - other.corners.mean(axis=0))
    return bool(apart < reach)


def _appearances(query: QueryFeatures, found: Sequence[Appearance]) -> list[Appearance]:
    """Bring corners from the working size to the picture as shown."""
    region = query.region
    factors = np.array([region.width / query.width, region.height / query.height])
    origin = np.array([region.x_min, region.y_min])
    return [Appearance(one.corners * factors + origin, one.inlier_count) for one in found]


def corners_of(box: Box) -> npt.NDArray[np.float64]:
    """Clockwise from the top left, [4, 2]."""
    left, top, right, bottom = box
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
