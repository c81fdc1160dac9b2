"""Garments cut out of the parser's maps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from imagesearch_services.embedding.subjects.clothing import (
    BOTTOMS,
    DRESS,
    TOPS,
    cut_into_subjects,
    find_clothing,
)


def body(upper: dict[int, float], lower: dict[int, float]) -> npt.NDArray[np.float32]:
    """Maps [9, 64, 44] of a body in two halves, each with probabilities by class."""
    maps = np.zeros((9, 64, 44), np.float32)
    maps[0] = 1
    for rows, probabilities in ((slice(10, 30), upper), (slice(30, 54), lower)):
        maps[:, rows, 12:32] = 0
        for index, probability in probabilities.items():
            maps[index, rows, 12:32] = probability
    return maps


@pytest.mark.parametrize(
    ("upper", "lower", "told"),
    [
        ({TOPS: 0.5, DRESS: 0.45}, {DRESS: 0.9, BOTTOMS: 0.1}, ["DRESS"]),
        ({TOPS: 0.9, DRESS: 0.1}, {DRESS: 0.48, BOTTOMS: 0.47}, ["BOTTOMS", "TOPS"]),
        ({TOPS: 0.95, DRESS: 0.02}, {DRESS: 0.95, BOTTOMS: 0.02}, ["DRESS", "TOPS"]),
    ],
)
def test_a_body_wears_a_dress_or_a_top_with_something_as_a_whole(
    upper: dict[int, float], lower: dict[int, float], told: list[str]
) -> None:
    found = find_clothing(body(upper, lower))
    assert sorted(subject.category.name for subject in found) == told


@pytest.mark.parametrize(("dress", "told"), [(-4.0, "BOTTOMS"), (4.0, "DRESS")])
def test_what_else_is_known_of_a_dress_settles_a_doubt(dress: float, told: str) -> None:
    doubtful = body({TOPS: 0.5, DRESS: 0.45}, {DRESS: 0.48, BOTTOMS: 0.47})
    found = find_clothing(doubtful, dress=dress)
    assert told in {subject.category.name for subject in found}
    assert len({subject.category.name for subject in found} & {"DRESS", "BOTTOMS"}) == 1


def test_labels_are_cut_as_they_are() -> None:
    labels = body({TOPS: 1.0}, {DRESS: 1.0})
    found = cut_into_subjects(labels)
    assert [subject.category.name for subject in found] == ["DRESS", "TOPS"]
    assert found[0].box == pytest.approx((12 / 44, 30 / 64, 32 / 44, 54 / 64), abs=0.01)


def test_maps_without_clothing_give_nothing() -> None:
    assert find_clothing(body({0: 1.0}, {1: 1.0})) == []
