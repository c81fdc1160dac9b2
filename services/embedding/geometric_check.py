"""Which matches of local features agree on one movement of the picture, and whether it makes sense.

Every match proposes a similarity by the places, sizes and directions of its two keypoints, so that
one right match among hundreds of wrong ones is enough and nothing is drawn by chance (Philbin et
al., "Object retrieval with large vocabularies and fast spatial matching", CVPR 2007). The best are
refined to an affine map, and on request simplified to a similarity or refined to a homography.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from imagesearch_services.embedding.local_features import LocalFeatures, Matches

Matrix = npt.NDArray[np.float64]
Points = npt.NDArray[np.float64]
Size = tuple[int, int]

_PLACE_BITS = 24
"""More than a coordinate of a picture needs."""


@dataclass(frozen=True, slots=True)
class GeometricRules:
    """What counts as agreeing, and which movements make sense."""

    tolerance_px: float = 4.0
    """How far from its place in the second picture an inlier may lie."""
    loose_tolerance_px: float = 20.0
    """The same before refinement: one match tells the movement only roughly."""
    max_hypotheses: int = 160
    """Matches that propose a movement: the best of them."""
    refined_hypotheses: int = 6
    """The best of the proposals that are refined."""
    min_inliers: int = 4
    scale_range: tuple[float, float] = (0.08, 12.0)
    """Of lengths, from the first picture to the second."""
    max_anisotropy: float = 3.0
    """Scale in one direction over that across it."""
    min_spread: float = 0.02
    """Area that the inliers span, as a share of what both pictures show."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """A movement that takes the first picture to the second."""

    matrix: Matrix
    """Homography between pixels, [3, 3], the last element 1."""
    inliers: npt.NDArray[np.intp]
    """Rows of the matches that agree on it."""

    @property
    def inlier_count(self) -> int:
        return len(self.inliers)


def align(
    first: LocalFeatures,
    second: LocalFeatures,
    matches: Matches,
    *,
    first_size: Size,
    second_size: Size,
    rules: GeometricRules,
) -> Alignment | None:
    """Find the affine movement that most matches agree on.

    Args:
        first: features of one picture.
        second: features of the other.
        matches: between them, best first.
        first_size: width and height of the first picture, pixels.
        second_size: of the second.
        rules: what makes sense.

    Returns:
        The alignment, or None where no movement that makes sense has inliers enough.
    """
    if len(matches) < rules.min_inliers:
        return None
    source, target = _places(first, second, matches)
    hypotheses = _similarities(first, second, matches, rules.max_hypotheses)
    best: Alignment | None = None
    for hypothesis in _most_agreed(hypotheses, source, target, rules):
        found = _refined(hypothesis, source, target, rules)
        if found is None or not is_plausible(found.matrix, first_size, rules):
            continue
        if _spread(found, source, target, first_size, second_size) < rules.min_spread:
            continue
        if best is None or found.inlier_count > best.inlier_count:
            best = found
    return best


def as_similarity(
    found: Alignment,
    first: LocalFeatures,
    second: LocalFeatures,
    matches: Matches,
    *,
    rules: GeometricRules,
) -> Alignment | None:
    """Simplify an affine alignment to a turn, one scale and a shift.

    Few matches, or matches in one corner, leave more freedom than they can hold: what is far from
    them would be skewed.

    Returns:
        What fits the alignment's inliers best; None where they are all in one place.
    """
    source, target = _places(first, second, matches)
    fitted = _similarity_fit(source[found.inliers], target[found.inliers])
    if fitted is None:
        return None
    matrix = np.vstack([fitted, [0.0, 0.0, 1.0]])
    return Alignment(matrix, _agreeing(matrix, source, target, rules.tolerance_px))


def with_perspective(
    found: Alignment,
    first: LocalFeatures,
    second: LocalFeatures,
    matches: Matches,
    *,
    first_size: Size,
    rules: GeometricRules,
) -> Alignment | None:
    """Refine an affine alignment to a homography.

    Returns:
        What MAGSAC++ (Barath et al., "MAGSAC++, a fast, reliable and accurate robust estimator",
        CVPR 2020) finds among the matches nearby; None where that makes no sense or has fewer
        inliers.
    """
    source, target = _places(first, second, matches)
    near = _agreeing(found.matrix, source, target, rules.loose_tolerance_px)
    if len(near) < 2 * rules.min_inliers:
        return None
    homography, _ = cv2.findHomography(
        source[near], target[near], cv2.USAC_MAGSAC, rules.tolerance_px, maxIters=500
    )
    if homography is None:
        return None
    matrix = np.asarray(homography, np.float64)
    if not is_plausible(matrix, first_size, rules):
        return None
    inliers = _agreeing(matrix, source, target, rules.tolerance_px)
    return Alignment(matrix, inliers) if len(inliers) >= found.inlier_count else None


def moved(matrix: Matrix, points: Points) -> Points:
    """Apply a homography to points, [points, 2] → [points, 2]."""
    homogeneous = points @ matrix[:, :2].T + matrix[:, 2]
    depth = homogeneous[:, 2:]
    return homogeneous[:, :2] / np.where(np.abs(depth) < 1e-9, 1e-9, depth)  # noqa: PLR2004


def corners(size: Size) -> Points:
    """Give the corners of a picture, clockwise from the top left, [4, 2]."""
    width, height = size
    return np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)


def quadrilateral_area(quadrilateral: Points) -> float:
    """Give the area, negative where the corners run counter-clockwise."""
    x, y = quadrilateral[:, 0], quadrilateral[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def is_plausible(matrix: Matrix, size: Size, rules: GeometricRules) -> bool:
    """Say whether a camera or an editor may have moved a picture of that size so.

    The outline must stay convex and unmirrored, its scale and anisotropy within the rules.
    """
    outline = corners(size)
    depths = outline @ matrix[2, :2] + matrix[2, 2]
    if not np.isfinite(matrix).all() or depths.min() <= 0:
        return False
    quadrilateral = moved(matrix, outline)
    sides = np.roll(quadrilateral, -1, axis=0) - quadrilateral
    turns = sides[:, 0] * np.roll(sides[:, 1], -1) - sides[:, 1] * np.roll(sides[:, 0], -1)
    if turns.min() <= 0:
        return False
    low, high = _singular_values(local_affine(matrix, size))
    return (
        low >= rules.scale_range[0]
        and high <= rules.scale_range[1]
        and high <= rules.max_anisotropy * low
    )


def local_affine(matrix: Matrix, size: Size) -> Matrix:
    """Give the linear part of a homography at the middle of a picture, [2, 2]."""
    x, y = size[0] / 2, size[1] / 2
    depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    image = (matrix[:2] @ np.array([x, y, 1.0])) / depth
    linear: Matrix = (matrix[:2, :2] - np.outer(image, matrix[2, :2])) / depth
    return linear


def _singular_values(linear: Matrix) -> tuple[float, float]:
    high, low = np.linalg.svd(linear, compute_uv=False)
    return float(low), float(high)


def _places(first: LocalFeatures, second: LocalFeatures, matches: Matches) -> tuple[Points, Points]:
    """Give where the features of each match lie in either picture, both [matches, 2]."""
    return (
        first.points[matches.first].astype(np.float64),
        second.points[matches.second].astype(np.float64),
    )


def _similarities(
    first: LocalFeatures, second: LocalFeatures, matches: Matches, most: int
) -> Matrix:
    """Give what each of the best matches proposes, [matches, 2, 3]."""
    of_first, of_second = matches.first[:most], matches.second[:most]
    scales = second.sizes[of_second] / first.sizes[of_first]
    turns = second.angles[of_second] - first.angles[of_first]
    cosines, sines = scales * np.cos(turns), scales * np.sin(turns)
    linear = np.stack([cosines, -sines, sines, cosines], axis=1).reshape(-1, 2, 2)
    shift = second.points[of_second] - np.einsum("nij,nj->ni", linear, first.points[of_first])
    return np.concatenate([linear, shift[..., None]], axis=2).astype(np.float64)


def _most_agreed(
    hypotheses: Matrix, source: Points, target: Points, rules: GeometricRules
) -> Matrix:
    """Give the hypotheses with the most matches within the loose tolerance, best first."""
    x, y = (
        hypotheses[:, axis, :2] @ source.T + hypotheses[:, axis, 2:] - target[:, axis]
        for axis in range(2)
    )
    distances = np.sqrt(x * x + y * y)
    near = np.maximum(0.0, 1 - distances / rules.loose_tolerance_px).sum(axis=1)
    order = np.argsort(-near, kind="stable")[: rules.refined_hypotheses]
    return hypotheses[order]


def _refined(
    hypothesis: Matrix, source: Points, target: Points, rules: GeometricRules
) -> Alignment | None:
    """Fit an affine map to those that agree, tightening what agreeing means."""
    affine = hypothesis
    for tolerance_px in (
        rules.loose_tolerance_px,
        rules.loose_tolerance_px / 2,
        2 * rules.tolerance_px,
        rules.tolerance_px,
    ):
        agreeing = _agreeing(affine, source, target, tolerance_px)
        if len(agreeing) < rules.min_inliers:
            return None
        fitted = _affine_fit(source[agreeing], target[agreeing])
        if fitted is None:
            return None
        affine = fitted
    agreeing = _agreeing(affine, source, target, rules.tolerance_px)
    if len(agreeing) < rules.min_inliers:
        return None
    return Alignment(np.vstack([affine, [0.0, 0.0, 1.0]]), agreeing)


def _agreeing(
    matrix: Matrix, source: Points, target: Points, tolerance_px: float
) -> npt.NDArray[np.intp]:
    """Give the matches within the tolerance, one for each place in either picture."""
    places = moved(matrix, source) if len(matrix) == 3 else source @ matrix[:, :2].T + matrix[:, 2]  # noqa: PLR2004
    offsets = places - target
    near = np.flatnonzero((offsets * offsets).sum(axis=1) <= tolerance_px**2)
    # SIFT gives a keypoint several directions, and a repeat would count as evidence again.
    near = near[_first_of_each_place(source[near])]
    distinct: npt.NDArray[np.intp] = near[_first_of_each_place(target[near])]
    return distinct


def _first_of_each_place(points: Points) -> npt.NDArray[np.intp]:
    """Give the rows of the points that no earlier one shares its pixel with, in their order."""
    x, y = np.round(points).astype(np.int64).T
    _, rows = np.unique((x << _PLACE_BITS) + y, return_index=True)
    return np.sort(rows)


def _affine_fit(source: Points, target: Points) -> Matrix | None:
    design = np.column_stack([source, np.ones(len(source))])
    solution, _, rank, _ = np.linalg.lstsq(design, target, rcond=1e-9)
    return None if rank < 3 else np.ascontiguousarray(solution.T)  # noqa: PLR2004


def _similarity_fit(source: Points, target: Points) -> Matrix | None:
    """Fit by least squares, points as complex numbers: target = factor * source + shift."""
    a, b = source @ (1, 1j), target @ (1, 1j)
    centred = a - a.mean()
    spread = float((np.abs(centred) ** 2).sum())
    if spread == 0:
        return None
    factor = (centred.conj() * (b - b.mean())).sum() / spread
    shift = b.mean() - factor * a.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def _spread(
    found: Alignment, source: Points, target: Points, first_size: Size, second_size: Size
) -> float:
    """Give the area that the inliers span, as a share of the smaller picture."""
    spanned = min(
        _hull_area(source[found.inliers]) / (first_size[0] * first_size[1]),
        _hull_area(target[found.inliers]) / (second_size[0] * second_size[1]),
    )
    shown = visible_shares(found.matrix, first_size, second_size)
    return spanned / max(min(shown), 1e-6)


def _hull_area(points: Points) -> float:
    return float(cv2.contourArea(cv2.convexHull(points.astype(np.float32))))


def visible_shares(matrix: Matrix, first_size: Size, second_size: Size) -> tuple[float, float]:
    """Give which share of each picture the other one shows, by area.

    Of the first it is measured on its outline in the second, so perspective weighs in.
    """
    outline = shapely.Polygon(moved(matrix, corners(first_size)))
    frame = shapely.box(0, 0, *second_size)
    # OpenCV's intersectConvexConvex gives half of it or less where sides nearly coincide.
    shared = shapely.intersection(outline, frame).area
    of_first = min(1.0, shared / max(outline.area, 1e-9))
    return of_first, min(1.0, shared / (second_size[0] * second_size[1]))
