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
def test_no_label_hides_another_or_leaves_the_picture(wanted: list[Label]) -> None:
    places = place(wanted, BOUNDS)
    assert len(places) == len(wanted)
    placed = [spot for spot in places if spot is not None]
    for a, b in itertools.combinations(placed, 2):
        assert overlap(a, b) == 0
    for label, spot in zip(wanted, places, strict=True):
        if spot is not None:
            assert (spot.width, spot.height) == (label.width, label.height)
            assert spot.x_min >= BOUNDS.x_min
            assert spot.y_min >= BOUNDS.y_min
            assert spot.x_max <= BOUNDS.x_max
            assert spot.y_max <= BOUNDS.y_max


def test_a_lone_label_stands_on_its_box() -> None:
    (spot,) = place([Label(Box(200, 200, 400, 400), 80, 30)], BOUNDS)
    assert spot == Box(200, 170, 280, 200)


def test_the_label_of_a_tilted_shape_stands_on_its_top_corner() -> None:
    corners = [(300.0, 200.0), (450.0, 260.0), (390.0, 400.0), (240.0, 340.0)]
    (spot,) = place([Label(Box(240, 200, 450, 400), 80, 30, corners)], BOUNDS)
    assert spot == Box(260, 170, 340, 200)


def test_boxes_in_the_same_place_have_their_labels_around_it() -> None:
    box = Box(300, 250, 500, 400)
    places = place([Label(box, 90, 30)] * 8, BOUNDS)
    assert None not in places
    assert len(set(places)) == 8
    for spot in places:
        assert spot is not None
        assert overlap(Box(spot.x_min - 1, spot.y_min - 1, spot.x_max + 1, spot.y_max + 1), box)


def test_a_label_leaves_its_neighbour_s_box_alone_where_it_can() -> None:
    above, below = Box(100, 100, 300, 200), Box(100, 205, 300, 400)
    first, second = place([Label(above, 80, 30), Label(below, 80, 30)], BOUNDS)
    assert first is not None
    assert second is not None
    assert overlap(first, below) == 0
    assert overlap(second, above) == 0


def test_what_has_no_room_has_no_place() -> None:
    tiny = Box(0, 0, 64, 64)
    wanted = [Label(tiny, 60, 30)] * 3
    assert [spot is None for spot in place(wanted, tiny)] == [False, False, True]
    assert place([Label(tiny, 100, 10)], tiny) == [None]
