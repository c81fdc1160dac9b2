from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.drawing.layout import Cell, Layout, Metrics, alone, beside
from imagesearch_services.embedding.drawing.placement import overlap

CELLS = [Cell(1.3, [(60, 27), (150 + 60 * row, 27)]) for row in range(20)]


def check(layout: Layout, side: int) -> None:
    """Everything inside, nothing over anything else, words under their pictures."""
    whole = Box(0, 0, layout.width, layout.height)
    assert max(layout.width, layout.height) <= side
    assert layout.picture.clipped(layout.width, layout.height) == layout.picture
    frames = [layout.room]
    for cell in layout.cells:
        words = Box(
            cell.frame.x_min,
            cell.caption_top,
            cell.frame.x_max,
            cell.caption_top + 27 * sum(cell.rows_per_line),
        )
        frames += [cell.frame, words]
    for frame in frames:
        assert overlap(frame, whole) == frame.width * frame.height
    for a, b in itertools.combinations(frames, 2):
        assert overlap(a, b) == 0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(16, 6000),
    st.integers(16, 6000),
    st.integers(0, 20),
    st.sampled_from([64, 320, 1280, 4096]),
)
def test_everything_has_a_place_of_its_own(width: int, height: int, count: int, side: int) -> None:
    metrics = Metrics.of(side)
    if count:
        check(beside(width, height, CELLS[:count], metrics), side)
    else:
        check(alone(width, height, metrics), side)


@pytest.mark.parametrize(("width", "height"), [(1200, 800), (800, 1200), (1000, 1000)])
def test_all_matches_are_shown_where_there_is_room(width: int, height: int) -> None:
    for count in (1, 3, 5, 10, 20):
        layout = beside(width, height, CELLS[:count], Metrics.of(1280))
        assert len(layout.cells) == count
        assert layout.picture.width * layout.picture.height > 0.25 * layout.width * layout.height


def test_matches_stand_beside_a_tall_picture_and_below_a_wide_one() -> None:
    tall = beside(600, 1200, CELLS[:4], Metrics.of(1280))
    assert all(cell.frame.x_min >= tall.picture.x_max for cell in tall.cells)
    wide = beside(1600, 600, CELLS[:4], Metrics.of(1280))
    assert all(cell.frame.y_min >= wide.picture.y_max for cell in wide.cells)


def test_a_drawing_without_room_for_matches_shows_the_picture() -> None:
    layout = beside(1200, 800, CELLS[:5], Metrics.of(64))
    assert layout.cells == ()
    assert layout.picture.width == 64


def test_shapes_keep_their_ratio() -> None:
    for width, height in ((1200, 800), (400, 3000), (37, 41)):
        picture = alone(width, height, Metrics.of(1280)).picture
        assert picture.width / picture.height == pytest.approx(width / height, rel=0.02)
