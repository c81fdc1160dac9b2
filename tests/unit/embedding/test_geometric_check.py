"""Estimation of the transform that matches agree on, and plausibility of transforms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from imagesearch_services.embedding.features import geometric_check
from imagesearch_services.embedding.features.geometric_check import (
    Alignment,
    GeometricRules,
    Matrix,
    align,
    as_similarity,
    corners,
    is_plausible,
    quadrilateral_area,
    transform,
    visible_shares,
    with_perspective,
)
from imagesearch_services.embedding.features.local_features import (
    DIMENSIONS,
    LocalFeatures,
    Matches,
)

RULES = GeometricRules()
SIZE = (400, 300)


def similarity(scale: float, degrees: float, x: float, y: float) -> Matrix:
    cosine, sine = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return np.array([[cosine, -sine, x], [sine, cosine, y], [0, 0, 1]])


def features(points: Matrix, scale: float = 1.0, degrees: float = 0.0) -> LocalFeatures:
    count = len(points)
    return LocalFeatures(
        points.astype(np.float32),
        np.full(count, 5 * scale, np.float32),
        np.full(count, math.radians(degrees), np.float32),
        np.zeros((count, DIMENSIONS), np.float32),
    )


def matched(
    matrix: Matrix, *, scale: float, degrees: float, inliers: int, outliers: int
) -> tuple[LocalFeatures, LocalFeatures, Matches]:
    """Return features of two pictures, with matches that fit the matrix and outliers."""
    random = np.random.default_rng(1)
    count = inliers + outliers
    source = random.uniform((0, 0), SIZE, (count, 2))
    target = transform(matrix, source)
    target[inliers:] = random.uniform((0, 0), SIZE, (outliers, 2))
    order = random.permutation(count)
    return features(source), features(target, scale, degrees), Matches(order, order)


def estimate(
    matrix: Matrix, *, scale: float = 1.0, degrees: float = 0.0, inliers: int, outliers: int
) -> Alignment | None:
    first, second, matches = matched(
        matrix, scale=scale, degrees=degrees, inliers=inliers, outliers=outliers
    )
    return align(first, second, matches, first_size=SIZE, second_size=SIZE, rules=RULES)


def test_few_correct_matches_are_found_among_many_outliers() -> None:
    truth = similarity(0.6, 40, 100, 20)
    alignment = estimate(truth, scale=0.6, degrees=40, inliers=15, outliers=185)
    assert alignment is not None
    assert alignment.inlier_count >= 15
    assert transform(alignment.matrix, corners(SIZE)) == pytest.approx(
        transform(truth, corners(SIZE)), abs=3
    )


def test_outliers_alone_have_few_inliers() -> None:
    alignment = estimate(np.eye(3), inliers=0, outliers=200)
    assert alignment is None or alignment.inlier_count < 12


def test_three_matches_give_no_alignment() -> None:
    assert estimate(np.eye(3), inliers=3, outliers=0) is None


def test_matches_in_a_small_area_give_no_alignment() -> None:
    source = np.random.default_rng(1).uniform(100, 110, (50, 2))
    both, order = features(source), np.arange(50)
    matches = Matches(order, order)
    assert align(both, both, matches, first_size=SIZE, second_size=SIZE, rules=RULES) is None


def test_duplicates_of_a_keypoint_count_once() -> None:
    corner_points = np.array([(0, 0), (300, 10), (290, 250), (10, 240), (150, 100)], np.float64)
    both, order = features(np.repeat(corner_points, 10, axis=0)), np.arange(50)
    matches = Matches(order, order)
    alignment = align(both, both, matches, first_size=SIZE, second_size=SIZE, rules=RULES)
    assert alignment is not None
    assert alignment.inlier_count == 5


def test_perspective_refinement_adds_inliers() -> None:
    truth = np.array([[1.0, 0.1, 5], [0.02, 0.9, 8], [2e-4, 1e-4, 1]])
    first, second, matches = matched(truth, scale=0.95, degrees=0, inliers=150, outliers=50)
    affine = align(first, second, matches, first_size=SIZE, second_size=SIZE, rules=RULES)
    assert affine is not None
    homography = with_perspective(affine, first, second, matches, first_size=SIZE, rules=RULES)
    assert homography is not None
    assert homography.inlier_count > affine.inlier_count
    assert transform(homography.matrix, corners(SIZE)) == pytest.approx(
        transform(truth, corners(SIZE)), abs=2
    )


def test_few_matches_in_a_corner_do_not_skew_a_similarity() -> None:
    truth = similarity(0.8, 10, 40, 5)
    random = np.random.default_rng(3)
    source = random.uniform((0, 0), (90, 70), (12, 2))
    target = transform(truth, source) + random.normal(scale=0.8, size=(12, 2))
    first, second, order = features(source), features(target, 0.8, 10), np.arange(12)
    affine = Alignment(truth, order)
    similar = as_similarity(affine, first, second, Matches(order, order), rules=RULES)
    assert similar is not None
    linear = similar.matrix[:2, :2]
    assert linear @ linear.T == pytest.approx(0.8**2 * np.eye(2), abs=0.1)
    assert linear @ linear.T / np.linalg.det(linear) == pytest.approx(np.eye(2))
    assert transform(similar.matrix, corners(SIZE)) == pytest.approx(
        transform(truth, corners(SIZE)), abs=12
    )


def test_coinciding_matches_give_no_similarity() -> None:
    both, order = features(np.full((5, 2), 50.0)), np.arange(5)
    identity = Alignment(np.eye(3), order)
    assert as_similarity(identity, both, both, Matches(order, order), rules=RULES) is None


IMPLAUSIBLE = {
    "mirrored": np.diag([-1.0, 1.0, 1.0]),
    "squeezed": np.diag([1.0, 0.2, 1.0]),
    "too small": np.diag([0.01, 0.01, 1.0]),
    "too large": np.diag([50.0, 50.0, 1.0]),
    "beyond the horizon": np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]]),
    "not finite": np.full((3, 3), np.nan),
}


@pytest.mark.parametrize("name", IMPLAUSIBLE)
def test_an_implausible_transform_is_rejected(name: str) -> None:
    assert not is_plausible(IMPLAUSIBLE[name], SIZE, RULES)


@pytest.mark.parametrize("degrees", [0, 37, 90, 180, 270])
def test_rotation_and_scaling_are_plausible(degrees: float) -> None:
    assert is_plausible(similarity(0.5, degrees, 10, 20), SIZE, RULES)


def test_visible_shares_are_shares_of_the_area() -> None:
    pasted = similarity(0.5, 0, 50, 50)
    assert visible_shares(pasted, SIZE, SIZE) == pytest.approx((1, 0.25))
    assert visible_shares(np.linalg.inv(pasted), SIZE, SIZE) == pytest.approx((0.25, 1))
    assert visible_shares(similarity(1, 0, 200, 0), SIZE, SIZE) == pytest.approx((0.5, 0.5))
    assert visible_shares(similarity(1, 0, 900, 0), SIZE, SIZE) == pytest.approx((0, 0))


def test_pictures_whose_sides_nearly_coincide_show_each_other_completely() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        nearly_identity = np.eye(3) + random.normal(scale=1e-14, size=(3, 3))
        assert visible_shares(nearly_identity, SIZE, SIZE) == pytest.approx((1, 1), abs=1e-6)


def test_the_sign_of_an_area_is_the_orientation_of_the_corners() -> None:
    assert quadrilateral_area(corners(SIZE)) == 400 * 300
    assert quadrilateral_area(corners(SIZE)[::-1]) == -400 * 300


def test_the_linear_part_of_a_homography_is_its_derivative_at_the_center() -> None:
    matrix = np.array([[1.2, 0.1, 5], [0.02, 0.9, 8], [2e-4, 1e-4, 1]])
    points = np.array([[200.0, 150.0], [201.0, 150.0], [200.0, 151.0]])
    start, right, down = transform(matrix, points)
    linear = geometric_check.local_affine(matrix, SIZE)
    assert linear == pytest.approx(np.column_stack([right - start, down - start]), abs=1e-3)
