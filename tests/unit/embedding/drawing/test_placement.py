"""Positions of labels."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.drawing.placement import Label, overlap, place

BOUNDS = Box(10, 20, 810, 620)


def boxes() -> st.SearchStrategy[Box]:
    edges = st.tuples(st.floats(10, 700), st.floats(20, 500), st.floats(2, 300), st.floats(2, 300))
    return edges.map(lambda at: Box(at[0], at[1], min(810, at[0] + at[2]), min(620, at[1] + at[3])))


def labels() -> st.SearchStrategy[Label]:
    return st.builds(Label, boxes(), st.integers(8, 200), st.integers(8, 60))


@settings(max_examples=80, deadline=None)
@given(st.lists(labels(), max_size=25))
def test_labels_do_not_overlap_and_stay_inside_the_bounds(requested: list[Label]) -> None:
    positions = place(requested, BOUNDS)
    assert len(positions) == len(requested)
    placed = [position for position in positions if position is not None]
    for a, b in itertools.combinations(placed, 2):
        assert overlap(a, b) == 0
    for label, position in zip(requested, positions, strict=True):
        if position is not None:
            assert (position.width, position.height) == (label.width, label.height)
            assert position.x_min >= BOUNDS.x_min
            assert position.y_min >= BOUNDS.y_min
            assert position.x_max <= BOUNDS.x_max
            assert position.y_max <= BOUNDS.y_max


def test_a_single_label_is_above_its_box() -> None:
    (position,) = place([Label(Box(200, 200, 400, 400), 80, 30)], BOUNDS)
    assert position == Box(200, 170, 280, 200)


def test_the_label_of_a_rotated_shape_is_above_its_top_corner() -> None:
    corners = [(300.0, 200.0), (450.0, 260.0), (390.0, 400.0), (240.0, 340.0)]
    (position,) = place([Label(Box(240, 200, 450, 400), 80, 30, corners)], BOUNDS)
    assert position == Box(260, 170, 340, 200)


def test_labels_of_identical_boxes_are_around_the_box() -> None:
    box = Box(300, 250, 500, 400)
    positions = place([Label(box, 90, 30)] * 8, BOUNDS)
    assert None not in positions
    assert len(set(positions)) == 8
    for position in positions:
        assert position is not None
        x_min, y_min, x_max, y_max = position
        assert overlap(Box(x_min - 1, y_min - 1, x_max + 1, y_max + 1), box)


def test_a_label_avoids_the_boxes_of_other_labels() -> None:
    above, below = Box(100, 100, 300, 200), Box(100, 205, 300, 400)
    first, second = place([Label(above, 80, 30), Label(below, 80, 30)], BOUNDS)
    assert first is not None
    assert second is not None
    assert overlap(first, below) == 0
    assert overlap(second, above) == 0


def test_a_label_without_room_has_no_position() -> None:
    tiny = Box(0, 0, 64, 64)
    identical = [Label(tiny, 60, 30)] * 3
    assert [position is None for position in place(identical, tiny)] == [False, False, True]
    assert place([Label(tiny, 100, 10)], tiny) == [None]
