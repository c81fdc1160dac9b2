"""Finds the stored elements that appear in a query, and their positions.

Matches of local features propose poses (see `pose`). The matches that one instance explains are
removed before the next instance is estimated. Elements of two colors are also found by their
shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.elements.bags import is_searched_inverted
from imagesearch_services.embedding.elements.features import QueryFeatures, StoredElement
from imagesearch_services.embedding.elements.matching import Gallery, GalleryMatches, Matches, match
from imagesearch_services.embedding.elements.pose import (
    Pose,
    estimate_pose,
    is_too_anisotropic,
    transformed_corners,
)
from imagesearch_services.embedding.elements.rules import Rules
from imagesearch_services.embedding.elements.shapes import (
    Shape,
    compare_shapes,
    shape_transform,
)
from imagesearch_services.embedding.elements.vocabulary import Vocabulary

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

EXPLAINED_MARGIN = 0.05
"""Margin around an instance in which it explains matches, as a share of the element's long side."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A position where an element's shape appears."""

    corners: Doubles
    """Corners of the element in the query's working image, clockwise from the element's own top
    left, [4, 2]."""
    closeness: float
    """Closeness of the shapes, see `compare_shapes`."""


@dataclass(frozen=True, slots=True)
class Verified:
    """An element that appears by its local features or by its shape."""

    row: int
    """Row of the candidate."""
    instances: Sequence[Pose]
    """Appearances by local features, best first."""
    outlines: Sequence[Outline] = ()
    """Appearances by shape, best first."""


def verify(
    query: QueryFeatures,
    elements: Sequence[StoredElement],
    vocabulary: Vocabulary,
    rules: Rules,
    similarities: Sequence[float] = (),
) -> list[Verified]:
    """Find elements in a query.

    The negatives of elements with few keypoints are searched for, too. Only the elements with the
    highest priority are localized: the agreement of the matches plus the weighted regional
    similarity.

    Args:
        query: features of the query.
        elements: candidates.
        vocabulary: vocabulary that describes both.
        rules: thresholds.
        similarities: regional similarity of each element to the nearest window of the query; empty
            if unknown.

    Returns:
        The elements that appear, in the order of `elements`.
    """
    if not elements:
        return []
    views = _views(query, elements, vocabulary)
    priorities = np.stack([matches.agreement for _, matches in views])
    if similarities:
        priorities += rules.similarity_weight * np.array(similarities)
    order = np.argsort(-priorities, axis=None, kind="stable")
    instances: dict[int, list[Pose]] = {}
    for index in order[: rules.max_localized].tolist():
        view, row = divmod(index, len(elements))
        features, matches = views[view]
        found = find_instances(features, elements[row], matches.of(row), rules)
        if found and (row not in instances or found[0].weight > instances[row][0].weight):
            instances[row] = found
    outlines = find_outlines(query, elements, rules)
    return [
        Verified(row, instances.get(row, ()), outlines.get(row, ()))
        for row in sorted(instances.keys() | outlines.keys())
    ]


def _views(
    query: QueryFeatures, elements: Sequence[StoredElement], vocabulary: Vocabulary
) -> list[tuple[QueryFeatures, GalleryMatches]]:
    """Match the elements with the query and, for those searched for inverted, with its negative."""
    gallery = Gallery.of(elements, vocabulary)
    inverted = np.array(
        [is_searched_inverted(len(element.keypoints)) for element in elements], bool
    )
    views = [(query, match(query, gallery, vocabulary))]
    if inverted.any():
        negative = query.inverted(vocabulary)
        views.append((negative, match(negative, gallery.restricted_to(inverted), vocabulary)))
    return views


def find_outlines(
    query: QueryFeatures, elements: Sequence[StoredElement], rules: Rules
) -> dict[int, list[Outline]]:
    """Find the shapes of elements in a query. Returns the outlines by the row of the element."""
    rows = [row for row, element in enumerate(elements) if element.shape is not None]
    stored = [element.shape for element in elements if element.shape is not None]
    if not query.shapes or not rows:
        return {}
    comparisons = zip(*compare_shapes(stored, query.shapes), strict=True)
    found = {
        row: _outlines(elements[row], shape, query.shapes, comparison, rules)
        for row, shape, comparison in zip(rows, stored, comparisons, strict=True)
    }
    return {row: outlines for row, outlines in found.items() if outlines}


def _outlines(
    element: StoredElement,
    stored: Shape,
    shapes: Sequence[Shape],
    comparison: tuple[Floats, Ints],
    rules: Rules,
) -> list[Outline]:
    """Return the outlines of one element after non-maximum suppression.

    Args:
        element: element to localize.
        stored: shape of the element.
        shapes: shapes of the query.
        comparison: closeness and rotation of each shape of the query, both [shapes].
        rules: thresholds.
    """
    kept: list[Outline] = []
    closeness, rotations = comparison
    for row in np.argsort(-closeness, kind="stable").tolist():
        required = rules.instance_closeness * kept[0].closeness if kept else rules.min_closeness
        if closeness[row] <= required or len(kept) == rules.max_instances:
            break
        affine = shape_transform(stored, shapes[row], int(rotations[row]))
        scale = np.sqrt(abs(np.linalg.det(affine[:, :2])))
        if not rules.scale_range[0] < scale < rules.scale_range[1]:
            continue
        if is_too_anisotropic(affine, rules):
            continue
        corners = transformed_corners(element, affine)
        radius = scale * max(element.width, element.height) / 2
        center = corners.mean(axis=0)
        if all(np.linalg.norm(center - other.corners.mean(axis=0)) > radius for other in kept):
            kept.append(Outline(corners, float(closeness[row])))
    return kept


def find_instances(
    query: QueryFeatures, element: StoredElement, matches: Matches, rules: Rules
) -> list[Pose]:
    """Find all appearances of an element by its local features, best first."""
    found: list[Pose] = []
    while len(matches) >= rules.min_inliers and len(found) < rules.max_instances:
        best = matches.take(np.arange(min(len(matches), rules.max_matches)))
        pose = estimate_pose(query.keypoints, element, best, rules)
        if pose is None or (found and pose.weight < rules.instance_share * found[0].weight):
            break
        found.append(pose)
        matches = matches.take(~_explained(query, element, matches, pose))
    return found


def _explained(query: QueryFeatures, element: StoredElement, matches: Matches, pose: Pose) -> Bools:
    """Return the mask of the matches whose points in the query lie on an instance, [n]."""
    inverse = np.linalg.inv(pose.affine[:, :2])
    local = (query.keypoints.points[matches.query] - pose.affine[:, 2]) @ inverse.T
    margin = EXPLAINED_MARGIN * max(element.width, element.height)
    inside: Bools = (
        (local[:, 0] > -margin)
        & (local[:, 1] > -margin)
        & (local[:, 0] < element.width + margin)
        & (local[:, 1] < element.height + margin)
    )
    return inside
