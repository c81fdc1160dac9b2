"""Rendered drawings, checked pixel by pixel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from imagesearch_services.embedding.drawing.canvas import HALO, rgb
from imagesearch_services.embedding.drawing.fonts import Pixels
from imagesearch_services.embedding.drawing.layout import Metrics, picture_layout
from imagesearch_services.embedding.drawing.rendering import (
    COLORS,
    EMPTY_FRAME,
    HIGHLIGHT,
    Annotation,
    CaptionedThumbnail,
    Thumbnail,
    render,
)
from imagesearch_services.embedding.pictures.picture import Picture
from tests.pictures import photo

Point = tuple[float, float]

TILTED = [(500.0, 130.0), (740.0, 210.0), (660.0, 470.0), (430.0, 380.0)]


def flat(width: int, height: int, color: tuple[int, int, int] = (128, 128, 128)) -> Picture:
    return Picture(Image.new("RGB", (width, height), color), width, height)


def box(x_min: float, y_min: float, x_max: float, y_max: float) -> list[Point]:
    return [(x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max)]


def thumbnail(pixels: Pixels) -> Thumbnail:
    return Thumbnail(pixels.shape[1], pixels.shape[0], pixels)


def along(points: Sequence[Point], factor: float) -> list[tuple[int, int]]:
    """Return pixels (x, y) on the edges of a shape, without its corners."""
    closed = [*points, points[0]]
    shares = np.linspace(0.08, 0.92, 40)
    return [
        (int((a[0] + (b[0] - a[0]) * share) * factor), int((a[1] + (b[1] - a[1]) * share) * factor))
        for a, b in itertools.pairwise(closed)
        for share in shares
    ]


def share_of(pixels: Pixels, positions: Sequence[tuple[int, int]], color: str) -> float:
    """Return the share of positions (x, y) that nearly have a color."""
    near = [
        max(abs(int(a) - b) for a, b in zip(pixels[y, x], rgb(color), strict=True)) < 40
        for x, y in positions
    ]
    return sum(near) / len(near)


@pytest.mark.parametrize("side", [400, 800, 1280, 2500])
@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255), (128, 128, 128)])
def test_outlines_lie_at_their_coordinates(side: int, background: tuple[int, int, int]) -> None:
    shapes = [box(40, 60, 300, 250), box(350.5, 20.25, 480, 110), TILTED]
    annotations = [Annotation(shape, (), row == 2) for row, shape in enumerate(shapes)]
    pixels = render(flat(800, 600, background), annotations, [], side)
    factor = pixels.shape[1] / 800
    for row, shape in enumerate(shapes):
        color = HIGHLIGHT if row == 2 else COLORS[row]
        assert share_of(pixels, along(shape, factor), color) > 0.98
        # Slightly inside and outside of the outline, the background is unchanged.
        off = (3 + 0.3 * Metrics.of(side).font) / factor
        center = np.mean(shape, axis=0)
        reach = np.abs(np.asarray(shape) - center).max(axis=0).min()
        for scale in (1 - off / reach, 1 + off / reach):
            moved = [tuple(center + (np.asarray(point) - center) * scale) for point in shape]
            assert share_of(pixels, along(moved, factor), color) < 0.02


def test_the_halo_makes_outlines_visible_on_any_background() -> None:
    for color in (*COLORS, HIGHLIGHT):
        assert abs(luminance(color) - luminance(HALO)) > 0.3
        pixels = render(flat(200, 200, rgb(color)), [Annotation(box(50, 50, 150, 150))], [], 800)
        dark = (pixels.astype(int).sum(axis=2) < 300).sum()
        assert dark > 4 * 100


def luminance(color: str) -> float:
    red, green, blue = (part / 255 for part in rgb(color))
    return float(0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2)


def test_a_box_beyond_the_picture_is_drawn_along_its_edge() -> None:
    pixels = render(flat(400, 300), [Annotation(box(-50, -50, 900, 900))], [], 800)
    height, width = pixels.shape[:2]
    edges = [(x, 0) for x in range(width)] + [(width - 1, y) for y in range(height)]
    assert share_of(pixels, edges, COLORS[0]) > 0.95


@pytest.mark.parametrize("side", [64, 100, 200, 640, 1280, 4096])
def test_no_drawing_exceeds_the_maximum_side(side: int) -> None:
    picture = thumbnail(np.asarray(flat(320, 240).image))
    captioned = [CaptionedThumbnail(picture, ["1 · 0.98", "photo.jpg"])] * 5
    annotation = Annotation(box(10, 10, 90, 90), ["shoes 0.93", "red 61%"], is_highlighted=True)
    for size in ((1200, 800), (90, 1600), (1600, 90), (16, 16)):
        for thumbnails in (captioned, []):
            pixels = render(flat(*size), [annotation], thumbnails, side)
            assert max(pixels.shape) <= side


def test_labels_are_readable_on_their_plates() -> None:
    annotations = [Annotation(box(100, 200, 400, 500), ["shoes 0.93"])]
    for background in ((0, 0, 0), (255, 255, 255)):
        bare = render(flat(800, 600, background), [Annotation(box(100, 200, 400, 500))], [], 800)
        pixels = render(flat(800, 600, background), annotations, [], 800)
        changed = np.argwhere((bare != pixels).any(axis=2))
        (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0)
        plate = pixels[top : bottom + 1, left : right + 1].astype(int).sum(axis=2)
        assert plate.min() < 60
        assert plate.max() > 3 * 250
        assert bottom - top < 60
        assert 60 < right - left < 250


def test_labels_of_crowded_boxes_cover_at_most_half_of_the_picture() -> None:
    crowd = [
        Annotation(box(90 + row, 90 + row, 200 + row, 180 + row), [f"thing {row}", "second line"])
        for row in range(150)
    ]
    pixels = render(Picture(photo(0, (400, 300)), 400, 300), crowd, [], 640)
    dark = (pixels.astype(int).sum(axis=2) < 60).mean()
    assert dark < 0.75  # at most half of the picture is under plates


def test_thumbnails_fill_their_frames_and_empty_frames_are_crossed_out() -> None:
    picture = thumbnail(np.asarray(flat(320, 240, (250, 10, 10)).image))
    red = CaptionedThumbnail(picture, ["1 · 0.98", "red.png"])
    empty = CaptionedThumbnail(None, ["2 · 0.91", "gone.png"])
    pixels = render(flat(800, 600), [], [red, empty], 1280)
    reds = np.argwhere((np.abs(pixels.astype(int) - (250, 10, 10)) < 12).all(axis=2))
    (top, left), (bottom, right) = reds.min(axis=0), reds.max(axis=0)
    assert (right - left) / (bottom - top) == pytest.approx(4 / 3, rel=0.03)
    assert len(reds) == (right - left + 1) * (bottom - top + 1)
    assert ((np.abs(pixels.astype(int) - rgb(EMPTY_FRAME)) < 3).all(axis=2)).sum() > len(reds) / 3


def test_a_tiny_picture_is_enlarged_to_keep_it_visible_under_labels() -> None:
    layout = picture_layout(64, 48, Metrics.of(1280))
    assert layout.width > 500
    assert render(flat(64, 48), [], [], 1280).shape[:2] == (layout.height, layout.width)


def test_a_thumbnail_is_not_enlarged_by_a_small_factor() -> None:
    expected = np.asarray(photo(5, (225, 300)))
    captioned = [
        CaptionedThumbnail(thumbnail(expected), [f"{rank} · 0.98"]) for rank in range(1, 6)
    ]
    pixels = render(flat(225, 300), [], captioned, 1280)
    corners = np.argwhere((pixels == expected[0, 0]).all(axis=2))
    found = [
        (top, left)
        for top, left in corners
        if np.array_equal(pixels[top : top + 300, left : left + 225], expected)
    ]
    assert len(found) == 5
