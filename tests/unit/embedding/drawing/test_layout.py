"""Layouts of a picture with thumbnails."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.drawing.layout import (
    Cell,
    Layout,
    Metrics,
    picture_layout,
    thumbnails_layout,
)
from imagesearch_services.embedding.drawing.placement import overlap

CELLS = [Cell(1.3, [(60, 27), (150 + 60 * row, 27)]) for row in range(20)]


def check(layout: Layout, side: int) -> None:
    """Check that all parts are inside the drawing and none overlap."""
    whole = Box(0, 0, layout.width, layout.height)
    assert max(layout.width, layout.height) <= side
    assert layout.picture.clipped(layout.width, layout.height) == layout.picture
    frames = [layout.room]
    for cell in layout.cells:
        caption = Box(
            cell.frame.x_min,
            cell.caption_top,
            cell.frame.x_max,
            cell.caption_top + 27 * sum(cell.rows_per_line),
        )
        frames += [cell.frame, caption]
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
def test_no_parts_of_a_layout_overlap(width: int, height: int, count: int, side: int) -> None:
    metrics = Metrics.of(side)
    if count:
        check(thumbnails_layout(width, height, CELLS[:count], metrics), side)
    else:
        check(picture_layout(width, height, metrics), side)


@pytest.mark.parametrize(("width", "height"), [(1200, 800), (800, 1200), (1000, 1000)])
def test_all_thumbnails_are_shown_if_there_is_room(width: int, height: int) -> None:
    for count in (1, 3, 5, 10, 20):
        layout = thumbnails_layout(width, height, CELLS[:count], Metrics.of(1280))
        assert len(layout.cells) == count
        assert layout.picture.width * layout.picture.height > 0.25 * layout.width * layout.height


def test_thumbnails_are_right_of_a_tall_picture_and_below_a_wide_picture() -> None:
    tall = thumbnails_layout(600, 1200, CELLS[:4], Metrics.of(1280))
    assert all(cell.frame.x_min >= tall.picture.x_max for cell in tall.cells)
    wide = thumbnails_layout(1600, 600, CELLS[:4], Metrics.of(1280))
    assert all(cell.frame.y_min >= wide.picture.y_max for cell in wide.cells)


def test_a_drawing_without_room_for_thumbnails_shows_the_picture() -> None:
    layout = thumbnails_layout(1200, 800, CELLS[:5], Metrics.of(64))
    assert layout.cells == ()
    assert layout.picture.width == 64


def test_pictures_keep_their_aspect_ratio() -> None:
    for width, height in ((1200, 800), (400, 3000), (37, 41)):
        picture = picture_layout(width, height, Metrics.of(1280)).picture
        assert picture.width / picture.height == pytest.approx(width / height, rel=0.02)
