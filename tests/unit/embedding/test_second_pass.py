"""Boxes of the parser's second pass, and merging of the maps of both passes."""

from __future__ import annotations

import numpy as np
import pytest

from imagesearch_services.embedding.subjects.second_pass import (
    CLASSES,
    LONG_SIDE_CELLS,
    WEIGHT,
    Floats,
    body_halves,
    merge_maps,
    split_body,
)

BACKGROUND, PERSON, TOPS, SALIENCY = 0, 1, 2, 9


def maps(height: int = 60, width: int = 40) -> Floats:
    """Return maps in which all cells are background."""
    found = np.zeros((10, height, width), np.float32)
    found[BACKGROUND] = 1.0
    return found


def with_person(found: Floats) -> Floats:
    found[:, 10:50, 12:28] = 0.0
    found[TOPS, 10:50, 12:28] = 1.0
    found[:, 10:16, 16:24] = 0.0
    found[PERSON, 10:16, 16:24] = 1.0
    return found


def test_halves_cover_the_body_and_overlap_at_the_waist() -> None:
    upper, lower = split_body((0.3, 0.1, 0.7, 0.9))
    assert upper[1] < 0.1
    assert lower[3] > 0.9
    assert lower[1] < 0.5 < upper[3]
    assert upper[0] == lower[0] < 0.3
    assert upper[2] == lower[2] > 0.7


def test_halves_stay_inside_the_picture() -> None:
    for half in split_body((0.0, 0.0, 1.0, 1.0)):
        assert min(half) >= 0.0
        assert max(half) <= 1.0


def test_there_is_no_second_pass_without_a_person() -> None:
    assert body_halves(maps()) == ()
    only_clothes = maps()
    only_clothes[:, 10:50, 12:28] = 0.0
    only_clothes[TOPS, 10:50, 12:28] = 1.0
    assert body_halves(only_clothes) == ()


def test_the_second_pass_covers_both_halves_of_a_person() -> None:
    upper, lower = body_halves(with_person(maps()))
    assert upper[0] < 12 / 40
    assert upper[2] > 28 / 40
    assert upper[1] < 10 / 60
    assert lower[3] > 50 / 60


def test_maps_without_a_second_pass_are_unchanged() -> None:
    first = with_person(maps())
    assert merge_maps(first, []) is first


def test_the_second_pass_adds_garments_that_the_first_missed() -> None:
    part = np.zeros((10, 64, 44), np.float32)
    part[TOPS] = 1.0
    both = merge_maps(maps(), [((0.25, 0.25, 0.75, 0.5), part)])
    assert both.shape == (10, LONG_SIDE_CELLS, round(LONG_SIDE_CELLS * 40 / 60))
    middle = both[:, LONG_SIDE_CELLS * 3 // 8, both.shape[2] // 2]
    assert middle[TOPS] == pytest.approx(WEIGHT / (1 + WEIGHT))
    assert middle[BACKGROUND] == pytest.approx(1 / (1 + WEIGHT))
    assert both[TOPS, -1].max() == 0.0
    assert both[SALIENCY].max() == 0.0


def test_merged_probabilities_sum_to_one() -> None:
    rng = np.random.default_rng(3)
    raw = rng.random((3, 10, 64, 44)).astype(np.float32)
    raw[:, :CLASSES] /= raw[:, :CLASSES].sum(axis=1, keepdims=True)
    first = raw[0]
    both = merge_maps(first, list(zip(split_body((0.2, 0.1, 0.8, 1.0)), raw[1:], strict=True)))
    np.testing.assert_allclose(both[:CLASSES].sum(axis=0), 1.0, rtol=1e-5)


@pytest.mark.parametrize("half", [(0.0, 0.0, 1e-6, 1e-6), (1 - 1e-6, 1 - 1e-6, 1.0, 1.0)])
def test_an_empty_part_is_merged_without_nan(half: tuple[float, float, float, float]) -> None:
    both = merge_maps(maps(), [(half, maps(1, 1))])
    assert np.isfinite(both).all()
