"""Clipping of boxes to pictures."""

from __future__ import annotations

import math

import pytest

from imagesearch_services.common.types import Box

INF = math.inf
NAN = math.nan


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        (Box(10, 10, 50, 40), Box(10, 10, 50, 40)),
        (Box(-5, -5, 200, 200), Box(0, 0, 100, 80)),
        (Box(-INF, 3, INF, INF), Box(0, 3, 100, 80)),
        (Box(99, 79, 100, 80), Box(99, 79, 100, 80)),
        (Box(10.25, 10.5, 11.25, 12.5), Box(10.25, 10.5, 11.25, 12.5)),
    ],
)
def test_a_box_is_clipped_to_the_picture(box: Box, inside: Box) -> None:
    assert box.clipped(100, 80) == inside


@pytest.mark.parametrize(
    "box",
    [
        Box(10, 10, 10, 40),  # no width
        Box(10, 10, 10.9, 40),  # narrower than a pixel
        Box(50, 10, 10, 40),  # inverted
        Box(100, 0, 150, 80),  # outside the picture
        Box(99.5, 0, 150, 80),  # less than a pixel inside
        Box(-50, -50, 0, 0),
        Box(INF, 0, INF, 80),
        Box(NAN, 0, 50, 50),
        Box(0, 0, 50, NAN),
    ],
)
def test_a_box_with_less_than_a_pixel_inside_is_clipped_to_none(box: Box) -> None:
    assert box.clipped(100, 80) is None
