"""Segmentation of garments in the parser's maps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from imagesearch_services.embedding.subjects.clothing import (
    BOTTOMS,
    DRESS,
    TOPS,
    find_garments,
    segment_garments,
)


def body(upper: dict[int, float], lower: dict[int, float]) -> npt.NDArray[np.float32]:
    """Return maps [9, 64, 44] of a body whose halves have these probabilities by class."""
    maps = np.zeros((9, 64, 44), np.float32)
    maps[0] = 1
    for rows, probabilities in ((slice(10, 30), upper), (slice(30, 54), lower)):
        maps[:, rows, 12:32] = 0
        for index, probability in probabilities.items():
            maps[index, rows, 12:32] = probability
    return maps


@pytest.mark.parametrize(
    ("upper", "lower", "categories"),
    [
        ({TOPS: 0.5, DRESS: 0.45}, {DRESS: 0.9, BOTTOMS: 0.1}, ["DRESS"]),
        ({TOPS: 0.9, DRESS: 0.1}, {DRESS: 0.48, BOTTOMS: 0.47}, ["BOTTOMS", "TOPS"]),
        ({TOPS: 0.95, DRESS: 0.02}, {DRESS: 0.95, BOTTOMS: 0.02}, ["DRESS", "TOPS"]),
    ],
)
def test_each_body_wears_one_consistent_outfit(
    upper: dict[int, float], lower: dict[int, float], categories: list[str]
) -> None:
    garments = find_garments(body(upper, lower))
    assert sorted(garment.category.name for garment in garments) == categories


@pytest.mark.parametrize(("dress_log_odds", "category"), [(-4.0, "BOTTOMS"), (4.0, "DRESS")])
def test_the_log_odds_of_a_dress_decide_an_ambiguous_outfit(
    dress_log_odds: float, category: str
) -> None:
    ambiguous = body({TOPS: 0.5, DRESS: 0.45}, {DRESS: 0.48, BOTTOMS: 0.47})
    garments = find_garments(ambiguous, dress_log_odds=dress_log_odds)
    names = {garment.category.name for garment in garments}
    assert category in names
    assert len(names & {"DRESS", "BOTTOMS"}) == 1


def test_ground_truth_labels_are_segmented_unchanged() -> None:
    labels = body({TOPS: 1.0}, {DRESS: 1.0})
    garments = segment_garments(labels)
    assert [garment.category.name for garment in garments] == ["DRESS", "TOPS"]
    assert garments[0].box == pytest.approx((12 / 44, 30 / 64, 32 / 44, 54 / 64), abs=0.01)


def test_maps_without_clothing_have_no_garments() -> None:
    assert find_garments(body({0: 1.0}, {1: 1.0})) == []
