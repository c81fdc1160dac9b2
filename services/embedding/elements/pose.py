"""Estimates the pose of an element in a query: the affine map that most matches agree on.

Every match proposes a similarity transform by the positions, sizes and directions of its keypoints
(a one-point Hough transform). The proposals with the most votes are refined to affine maps;
implausible maps are rejected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.elements.features import Keypoints, StoredElement
from imagesearch_services.embedding.elements.matching import Matches
from imagesearch_services.embedding.elements.rules import Rules

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MIN_AFFINE_INLIERS = 6
"""Minimum inliers of an affine fit; fewer inliers are fitted by a similarity transform."""
QUERY_CELL_PX, ELEMENT_CELL_PX = 2, 3
"""Sides of the cells in which inliers count once, in the query and in the element, in pixels."""
UNIFORM_AREA_DIVISOR = 12
"""Area of a rectangle divided by the square root of the determinant of the covariance of points
that are spread evenly over it."""


@dataclass(frozen=True, slots=True)
class Pose:
    """The pose of an element in a query."""

    affine: Doubles
    """Affine map from the element's working image to the query's, [2, 3]."""
    corners: Doubles
    """Corners of the element in the query's working image, clockwise from the element's own top
    left, [4, 2]."""
    inlier_count: int
    weight: float
    """Sum of the inliers' weights."""
    spread: float
    """Area over which the inliers are spread, as a ratio to that of features spread evenly over the
    element."""


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Matched keypoints, by column."""

    source: Doubles
    """Points in the element, [n, 2]."""
    target: Doubles
    """Points in the query, [n, 2]."""
    log_scales: Doubles
    """Logarithm of the query keypoint's size divided by the element keypoint's, [n]."""
    rotations: Doubles
    """Angle of the query's keypoint minus the element's, radians, [n]."""
    weights: Floats
    """Weight of each match, [n]."""

    @classmethod
    def of(cls, query: Keypoints, stored: Keypoints, matches: Matches) -> _Pairs:
        ratios = query.sizes[matches.query] / stored.sizes[matches.element]
        rotations = query.angles[matches.query] - stored.angles[matches.element]
        return cls(
            stored.points[matches.element].astype(np.float64),
            query.points[matches.query].astype(np.float64),
            np.log(ratios.astype(np.float64)),
            rotations.astype(np.float64),
            matches.weights,
        )


def estimate_pose(
    query: Keypoints, element: StoredElement, matches: Matches, rules: Rules
) -> Pose | None:
    """Estimate the pose with the greatest weight of inliers.

    Args:
        query: keypoints of the query.
        element: element to localize.
        matches: matches between both, best first.
        rules: thresholds.

    Returns:
        The pose; None if no pose is plausible.
    """
    pairs = _Pairs.of(query, element.keypoints, matches)
    side = float(max(element.width, element.height))
    # Each set of inliers is refined once, even if several proposals have it.
    proposals = {inliers.tobytes(): inliers for inliers in _proposals(pairs, side, rules)}
    best: Pose | None = None
    for inliers in proposals.values():
        pose = _refined(pairs, inliers, element, rules)
        if pose is not None and (best is None or pose.weight > best.weight):
            best = pose
    return best


def _proposals(pairs: _Pairs, side: float, rules: Rules) -> list[Bools]:
    """Return the inliers of the best similarity transforms that the best matches propose.

    Proposals are ranked twice, with a loose and with a strict tolerance. The loose tolerance is
    needed because a single match determines a transform only roughly, the strict tolerance because
    in a repeating pattern, matches that are off by one period are loose inliers and blur the fit.

    Returns:
        Inlier masks of `pairs`, each [n].
    """
    agrees, squared_errors, scales = _similarity_errors(pairs, rules)
    found: list[Bools] = []
    for tolerance in (rules.tolerances[0], rules.tolerances[2]):
        max_errors = tolerance * side * scales
        inliers = agrees & (squared_errors < max_errors * max_errors)
        votes = inliers @ pairs.weights
        found += [inliers[row] for row in np.argsort(-votes, kind="stable")[: rules.max_refined]]
    return found


def _similarity_errors(pairs: _Pairs, rules: Rules) -> tuple[Bools, Floats, Floats]:
    """Apply the similarity transforms that the best matches propose to all matches.

    Returns:
        Whether each match agrees in scale and rotation with each proposal, and its squared error in
        pixels of the query, both [proposals, n]; and the scale of each proposal, [proposals, 1].
    """
    source, target, log_scales, cosine, sine = (
        column.astype(np.float32)
        for column in (
            pairs.source,
            pairs.target,
            pairs.log_scales,
            np.cos(pairs.rotations),
            np.sin(pairs.rotations),
        )
    )
    proposing = slice(rules.max_proposals)
    scales = np.exp(log_scales[proposing])[:, None]
    cosines = scales * cosine[proposing, None]
    sines = scales * sine[proposing, None]
    dx = source[None, :, 0] - source[proposing, None, 0]
    dy = source[None, :, 1] - source[proposing, None, 1]
    x = target[proposing, None, 0] + cosines * dx - sines * dy - target[None, :, 0]
    y = target[proposing, None, 1] + sines * dx + cosines * dy - target[None, :, 1]
    squared_errors = x * x + y * y
    cosine_differences = cosine[proposing, None] * cosine[None] + sine[proposing, None] * sine[None]
    agrees = (np.abs(log_scales[proposing, None] - log_scales[None]) < rules.scale_tolerance) & (
        cosine_differences > np.cos(rules.angle_tolerance)
    )
    return agrees, squared_errors, scales


def _refined(pairs: _Pairs, inliers: Bools, element: StoredElement, rules: Rules) -> Pose | None:
    """Refit a proposal with decreasing tolerances; None if the result is not plausible."""
    side = float(max(element.width, element.height))
    affine = None
    for step, tolerance in enumerate(rules.tolerances[1:]):
        if inliers.sum() < rules.min_inliers:
            return None
        is_similarity = step == 0 or inliers.sum() < MIN_AFFINE_INLIERS
        fit = _fit_similarity if is_similarity else _fit_affine
        affine = fit(pairs.source[inliers], pairs.target[inliers])
        refitted = _affine_inliers(pairs, affine, tolerance * side, rules)
        if refitted is None:
            return None
        inliers = refitted
    assert affine is not None  # noqa: S101  # narrows the type: there is at least one refit
    rows = _distinct(pairs, np.flatnonzero(inliers))
    if len(rows) < rules.min_inliers:
        return None
    spread = _spread(pairs.source[rows], element)
    if spread < rules.min_spread or is_too_anisotropic(affine, rules):
        return None
    weight = float(pairs.weights[rows].sum())
    return Pose(affine, transformed_corners(element, affine), len(rows), weight, spread)


def transformed_corners(element: StoredElement, affine: Doubles) -> Doubles:
    """Return an element's corners after an affine map, clockwise from its own top left, [4, 2]."""
    width, height = element.width, element.height
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
    return corners @ affine[:, :2].T + affine[:, 2]


def is_too_anisotropic(affine: Doubles, rules: Rules) -> bool:
    """Return whether the scales of an affine map differ too much between directions."""
    high, low = np.linalg.svd(affine[:, :2], compute_uv=False)
    return not high <= rules.max_anisotropy * low


def _affine_inliers(
    pairs: _Pairs, affine: Doubles, tolerance_px: float, rules: Rules
) -> Bools | None:
    """Return the matches that agree with an affine map, [n].

    Args:
        pairs: matches.
        affine: affine map, [2, 3].
        tolerance_px: maximum error, in pixels of the element.
        rules: thresholds.

    Returns:
        The inlier mask; None if the map mirrors the element or its scale is out of range.
    """
    determinant = affine[0, 0] * affine[1, 1] - affine[0, 1] * affine[1, 0]
    scale = np.sqrt(abs(determinant))
    if determinant <= 0 or not rules.scale_range[0] < scale < rules.scale_range[1]:
        return None
    mapped = pairs.source @ affine[:, :2].T + affine[:, 2]
    errors = np.linalg.norm(mapped - pairs.target, axis=1)
    rotation = np.arctan2(affine[1, 0] - affine[0, 1], affine[0, 0] + affine[1, 1])
    inliers: Bools = (
        (errors < tolerance_px * scale)
        & (np.abs(pairs.log_scales - np.log(scale)) < rules.scale_tolerance)
        & (np.abs(_wrapped(pairs.rotations - rotation)) < rules.angle_tolerance)
    )
    return inliers


def _spread(points: Doubles, element: StoredElement) -> float:
    area = np.sqrt(max(np.linalg.det(np.cov(points.T)), 0.0))
    return float(area / (element.width * element.height / UNIFORM_AREA_DIVISOR))


def _distinct(pairs: _Pairs, rows: Ints) -> Ints:
    """Keep the best match at each position in either picture; others are no further evidence."""
    _, first = np.unique(np.rint(pairs.target[rows] / QUERY_CELL_PX), axis=0, return_index=True)
    rows = rows[np.sort(first)]
    _, first = np.unique(np.rint(pairs.source[rows] / ELEMENT_CELL_PX), axis=0, return_index=True)
    distinct: Ints = rows[np.sort(first)]
    return distinct


def _fit_similarity(source: Doubles, target: Doubles) -> Doubles:
    """Return the least-squares similarity transform, [2, 3]."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - source_mean, target - target_mean
    power = max(float((a * a).sum()), 1e-9)
    cosine = float((a * b).sum()) / power
    sine = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()) / power
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, target_mean - linear @ source_mean])


def _fit_affine(source: Doubles, target: Doubles) -> Doubles:
    """Return the least-squares affine map, [2, 3]."""
    design = np.column_stack([source, np.ones(len(source))])
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    return np.ascontiguousarray(solution.T)


def _wrapped(angles: Doubles) -> Doubles:
    """Wrap angles to [-π, π)."""
    return (angles + np.pi) % (2 * np.pi) - np.pi
