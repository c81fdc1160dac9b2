"""Extraction, mirroring and matching of local features."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from imagesearch_services.embedding.features.local_features import (
    DIMENSIONS,
    ExtractionLimits,
    Grey,
    LocalFeatures,
    extract,
    match,
)
from tests.pictures import photo

LIMITS = ExtractionLimits(max_features=300)


def grey(seed: int, size: tuple[int, int] = (320, 240)) -> Grey:
    return np.asarray(photo(seed, size).convert("L"))


def test_features_are_unit_vectors_inside_the_picture() -> None:
    found = extract(grey(0), LIMITS)
    assert 100 < len(found) <= 300
    assert found.descriptors.shape == (len(found), DIMENSIONS)
    assert np.linalg.norm(found.descriptors, axis=1) == pytest.approx(1, abs=1e-4)
    assert found.points.min() >= 0
    assert (found.points < (320, 240)).all()
    assert (found.sizes > 0).all()


def test_the_strongest_features_are_kept() -> None:
    many = extract(grey(0), LIMITS)
    few = extract(grey(0), ExtractionLimits(max_features=50))
    assert 0 < len(few) <= 50
    kept = {tuple(point) for point in many.points[:100]}
    assert sum(tuple(point) in kept for point in few.points) > 0.9 * len(few)


def test_extraction_is_deterministic() -> None:
    first, second = extract(grey(0), LIMITS), extract(grey(0).copy(), LIMITS)
    assert np.array_equal(first.points, second.points)
    assert np.array_equal(first.descriptors, second.descriptors)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_uniform_picture_has_no_features(level: int) -> None:
    found = extract(np.full((40, 60), level, np.uint8), LIMITS)
    assert len(found) == 0
    assert len(match(found, extract(grey(0), LIMITS), max_ratio=0.8, max_matches=10)) == 0
    assert len(found.mirrored(60)) == 0


def test_mirrored_features_equal_the_features_of_the_mirrored_picture() -> None:
    upright = grey(0)
    mirrored = extract(np.ascontiguousarray(upright[:, ::-1]), LIMITS)
    derived = extract(upright, LIMITS).mirrored(320)
    pairs = match(derived, mirrored, max_ratio=0.8, max_matches=300)
    assert len(pairs) > 100
    distances = np.linalg.norm(derived.points[pairs.first] - mirrored.points[pairs.second], axis=1)
    assert np.median(distances) < 0.1
    rotations = derived.angles[pairs.first] - mirrored.angles[pairs.second]
    assert np.median(np.abs(np.angle(np.exp(1j * rotations)))) < 0.05


def test_mirroring_twice_changes_nothing() -> None:
    found = extract(grey(0), LIMITS)
    twice = found.mirrored(320).mirrored(320)
    assert np.allclose(twice.points, found.points, atol=1e-3)
    assert np.array_equal(twice.descriptors, found.descriptors)


def test_features_match_across_scale_and_rotation() -> None:
    upright = grey(0, (400, 400))
    turn = cv2.getRotationMatrix2D((200, 200), 30, 0.7)
    turned = np.asarray(cv2.warpAffine(upright, turn, (400, 400)), np.uint8)
    first, second = extract(upright, LIMITS), extract(turned, LIMITS)
    pairs = match(first, second, max_ratio=0.8, max_matches=300)
    expected = first.points[pairs.first] @ turn[:, :2].T + turn[:, 2]
    near = np.linalg.norm(expected - second.points[pairs.second], axis=1) < 4
    assert near.mean() > 0.7


def test_matches_are_best_first_and_limited() -> None:
    first, second = extract(grey(0), LIMITS), extract(grey(0), LIMITS)
    pairs = match(first, second, max_ratio=0.8, max_matches=20)
    assert len(pairs) == 20
    assert np.array_equal(pairs.first, pairs.second)


def test_a_single_feature_has_no_matches() -> None:
    found = extract(grey(0), LIMITS)
    single = LocalFeatures(
        found.points[:1], found.sizes[:1], found.angles[:1], found.descriptors[:1]
    )
    assert len(match(single, found, max_ratio=0.8, max_matches=10)) == 0
    assert len(match(found, single, max_ratio=0.8, max_matches=10)) == 0
