"""Estimates the transform between two pictures from matches of local features.

Each match proposes a similarity transform by the positions, sizes and angles of its two keypoints,
so that one correct match among hundreds of outliers suffices, without random sampling
(Philbin et al., "Object retrieval with large vocabularies and fast spatial matching", CVPR 2007).
The best hypotheses are refined to affine transforms, and on request simplified to a similarity or
refined to a homography. Implausible transforms are rejected.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import shapely

from imagesearch_services.embedding.features.local_features import LocalFeatures, Matches

Matrix = npt.NDArray[np.float64]
Points = npt.NDArray[np.float64]
Size = tuple[int, int]

_COORDINATE_BITS = 24
"""Bits of a coordinate when x and y are packed into one integer; no picture has a longer side."""


@dataclass(frozen=True, slots=True)
class GeometricRules:
    """Rules for inliers and plausible transforms."""

    tolerance_px: float = 4.0
    """Maximum reprojection error of an inlier in the second picture, in pixels."""
    loose_tolerance_px: float = 20.0
    """Maximum error before refinement, pixels: the transform of a single match is rough."""
    max_hypotheses: int = 160
    """Maximum matches that propose a transform, best first."""
    refined_hypotheses: int = 6
    """Maximum hypotheses that are refined, best first."""
    min_inliers: int = 4
    """Minimum inliers of an alignment."""
    scale_range: tuple[float, float] = (0.08, 12.0)
    """Minimum and maximum scale from the first picture to the second."""
    max_anisotropy: float = 3.0
    """Maximum ratio of a transform's larger singular value to the smaller."""
    min_spread: float = 0.02
    """Minimum area of the inliers' convex hull, as a share of the overlap."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """A transform from the first picture to the second."""

    matrix: Matrix
    """Homography between pixel coordinates, float64 [3, 3], the last element 1."""
    inliers: npt.NDArray[np.intp]
    """Rows of the inlier matches."""

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
    """Estimate the affine transform with the most inliers.

    Args:
        first: features of the first picture.
        second: features of the second picture.
        matches: matches between the features, best first.
        first_size: width and height of the first picture, in pixels.
        second_size: width and height of the second picture, in pixels.
        rules: rules for inliers and plausible transforms.

    Returns:
        The alignment; None if no plausible transform has enough inliers.
    """
    if len(matches) < rules.min_inliers:
        return None
    source, target = _matched_points(first, second, matches)
    hypotheses = _similarities(first, second, matches, rules.max_hypotheses)
    best: Alignment | None = None
    for hypothesis in _best_hypotheses(hypotheses, source, target, rules):
        refined = _refine(hypothesis, source, target, rules)
        if refined is None or not is_plausible(refined.matrix, first_size, rules):
            continue
        if _spread(refined, source, target, first_size, second_size) < rules.min_spread:
            continue
        if best is None or refined.inlier_count > best.inlier_count:
            best = refined
    return best


def as_similarity(
    alignment: Alignment,
    first: LocalFeatures,
    second: LocalFeatures,
    matches: Matches,
    *,
    rules: GeometricRules,
) -> Alignment | None:
    """Simplify an affine alignment to a rotation, one scale and a translation.

    An affine transform that is fitted to few matches, or to matches in one corner, would skew the
    parts of the picture far from these matches.

    Returns:
        The least-squares fit to the alignment's inliers; None if all inliers coincide.
    """
    source, target = _matched_points(first, second, matches)
    fitted = _fit_similarity(source[alignment.inliers], target[alignment.inliers])
    if fitted is None:
        return None
    matrix = np.vstack([fitted, [0.0, 0.0, 1.0]])
    return Alignment(matrix, _inliers(matrix, source, target, rules.tolerance_px))


def with_perspective(
    alignment: Alignment,
    first: LocalFeatures,
    second: LocalFeatures,
    matches: Matches,
    *,
    first_size: Size,
    rules: GeometricRules,
) -> Alignment | None:
    """Refine an affine alignment to a homography.

    Returns:
        The homography that MAGSAC++ (Barath et al., "MAGSAC++, a fast, reliable and accurate robust
        estimator", CVPR 2020) estimates from the matches near the alignment; None if it is
        implausible or has fewer inliers.
    """
    source, target = _matched_points(first, second, matches)
    near = _inliers(alignment.matrix, source, target, rules.loose_tolerance_px)
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
    inliers = _inliers(matrix, source, target, rules.tolerance_px)
    return Alignment(matrix, inliers) if len(inliers) >= alignment.inlier_count else None


def transform(matrix: Matrix, points: Points) -> Points:
    """Apply a homography to points, [points, 2] → [points, 2]."""
    homogeneous = points @ matrix[:, :2].T + matrix[:, 2]
    depth = homogeneous[:, 2:]
    return homogeneous[:, :2] / np.where(np.abs(depth) < 1e-9, 1e-9, depth)  # noqa: PLR2004


def corners(size: Size) -> Points:
    """Return the corners of a picture, clockwise from the top left, float64 [4, 2]."""
    width, height = size
    return np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)


def quadrilateral_area(quadrilateral: Points) -> float:
    """Return the area of a quadrilateral, negative if its corners run counter-clockwise."""
    x, y = quadrilateral[:, 0], quadrilateral[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def is_plausible(matrix: Matrix, size: Size, rules: GeometricRules) -> bool:
    """Return whether a camera or an editor may have applied a homography to a picture.

    The picture's outline must stay convex and unmirrored, with scale and anisotropy within the
    rules.
    """
    outline = corners(size)
    depths = outline @ matrix[2, :2] + matrix[2, 2]
    if not np.isfinite(matrix).all() or depths.min() <= 0:
        return False
    quadrilateral = transform(matrix, outline)
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
    """Return the linear part of a homography at the center of a picture, [2, 2]."""
    x, y = size[0] / 2, size[1] / 2
    depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    projected = (matrix[:2] @ np.array([x, y, 1.0])) / depth
    linear: Matrix = (matrix[:2, :2] - np.outer(projected, matrix[2, :2])) / depth
    return linear


def _singular_values(linear: Matrix) -> tuple[float, float]:
    high, low = np.linalg.svd(linear, compute_uv=False)
    return float(low), float(high)


def _matched_points(
    first: LocalFeatures, second: LocalFeatures, matches: Matches
) -> tuple[Points, Points]:
    """Return the positions of matched features in both pictures, each float64 [matches, 2]."""
    return (
        first.points[matches.first].astype(np.float64),
        second.points[matches.second].astype(np.float64),
    )


def _similarities(
    first: LocalFeatures, second: LocalFeatures, matches: Matches, count: int
) -> Matrix:
    """Return the similarity transforms that the best matches propose, [matches, 2, 3]."""
    rows, other_rows = matches.first[:count], matches.second[:count]
    scales = second.sizes[other_rows] / first.sizes[rows]
    angles = second.angles[other_rows] - first.angles[rows]
    cosines, sines = scales * np.cos(angles), scales * np.sin(angles)
    linear = np.stack([cosines, -sines, sines, cosines], axis=1).reshape(-1, 2, 2)
    shift = second.points[other_rows] - np.einsum("nij,nj->ni", linear, first.points[rows])
    return np.concatenate([linear, shift[..., None]], axis=2).astype(np.float64)


def _best_hypotheses(
    hypotheses: Matrix, source: Points, target: Points, rules: GeometricRules
) -> Matrix:
    """Return the hypotheses with the most matches within the loose tolerance, best first."""
    x, y = (
        hypotheses[:, axis, :2] @ source.T + hypotheses[:, axis, 2:] - target[:, axis]
        for axis in range(2)
    )
    distances = np.sqrt(x * x + y * y)
    near = np.maximum(0.0, 1 - distances / rules.loose_tolerance_px).sum(axis=1)
    order = np.argsort(-near, kind="stable")[: rules.refined_hypotheses]
    return hypotheses[order]


def _refine(
    hypothesis: Matrix, source: Points, target: Points, rules: GeometricRules
) -> Alignment | None:
    """Fit an affine transform to the inliers, with a tolerance that decreases step by step."""
    affine = hypothesis
    for tolerance_px in (
        rules.loose_tolerance_px,
        rules.loose_tolerance_px / 2,
        2 * rules.tolerance_px,
        rules.tolerance_px,
    ):
        inliers = _inliers(affine, source, target, tolerance_px)
        if len(inliers) < rules.min_inliers:
            return None
        fitted = _fit_affine(source[inliers], target[inliers])
        if fitted is None:
            return None
        affine = fitted
    inliers = _inliers(affine, source, target, rules.tolerance_px)
    if len(inliers) < rules.min_inliers:
        return None
    return Alignment(np.vstack([affine, [0.0, 0.0, 1.0]]), inliers)


def _inliers(
    matrix: Matrix, source: Points, target: Points, tolerance_px: float
) -> npt.NDArray[np.intp]:
    """Return the rows of the matches within the tolerance, at most one row for each pixel."""
    is_homography = len(matrix) == 3  # noqa: PLR2004
    projected = (
        transform(matrix, source) if is_homography else source @ matrix[:, :2].T + matrix[:, 2]
    )
    offsets = projected - target
    near = np.flatnonzero((offsets * offsets).sum(axis=1) <= tolerance_px**2)
    # SIFT may assign several angles to a keypoint; its duplicates are no further evidence.
    near = near[_first_at_each_pixel(source[near])]
    distinct: npt.NDArray[np.intp] = near[_first_at_each_pixel(target[near])]
    return distinct


def _first_at_each_pixel(points: Points) -> npt.NDArray[np.intp]:
    """Return the row of the first point at each pixel, ascending."""
    x, y = np.round(points).astype(np.int64).T
    _, rows = np.unique((x << _COORDINATE_BITS) + y, return_index=True)
    return np.sort(rows)


def _fit_affine(source: Points, target: Points) -> Matrix | None:
    design = np.column_stack([source, np.ones(len(source))])
    solution, _, rank, _ = np.linalg.lstsq(design, target, rcond=1e-9)
    return None if rank < 3 else np.ascontiguousarray(solution.T)  # noqa: PLR2004


def _fit_similarity(source: Points, target: Points) -> Matrix | None:
    """Fit target = factor * source + shift by least squares, with points as complex numbers."""
    a, b = source @ (1, 1j), target @ (1, 1j)
    centered = a - a.mean()
    spread = float((np.abs(centered) ** 2).sum())
    if spread == 0:
        return None
    factor = (centered.conj() * (b - b.mean())).sum() / spread
    shift = b.mean() - factor * a.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def _spread(
    alignment: Alignment, source: Points, target: Points, first_size: Size, second_size: Size
) -> float:
    """Return the area of the inliers' convex hull, as a share of the overlap."""
    spanned = min(
        _hull_area(source[alignment.inliers]) / (first_size[0] * first_size[1]),
        _hull_area(target[alignment.inliers]) / (second_size[0] * second_size[1]),
    )
    shown = visible_shares(alignment.matrix, first_size, second_size)
    return spanned / max(min(shown), 1e-6)


def _hull_area(points: Points) -> float:
    return float(cv2.contourArea(cv2.convexHull(points.astype(np.float32))))


def visible_shares(matrix: Matrix, first_size: Size, second_size: Size) -> tuple[float, float]:
    """Return the share of each picture's area that the other picture shows.

    The share of the first picture is measured on its outline in the second, under perspective.
    """
    outline = shapely.Polygon(transform(matrix, corners(first_size)))
    frame = shapely.box(0, 0, *second_size)
    # OpenCV's intersectConvexConvex returns half of the area or less when sides nearly coincide.
    shared = shapely.intersection(outline, frame).area
    of_first = min(1.0, shared / max(outline.area, 1e-9))
    return of_first, min(1.0, shared / (second_size[0] * second_size[1]))
