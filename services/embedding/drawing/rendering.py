"""Renders a picture with annotated outlines, their labels, and captioned thumbnails next to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.drawing.canvas import Canvas, Point
from imagesearch_services.embedding.drawing.fonts import Pixels, Style
from imagesearch_services.embedding.drawing.labels import Outline, draw_labels
from imagesearch_services.embedding.drawing.layout import (
    Cell,
    Layout,
    Metrics,
    PlacedCell,
    picture_layout,
    thumbnails_layout,
)
from imagesearch_services.embedding.drawing.text import natural_size_px, set_rows
from imagesearch_services.embedding.pictures.picture import Picture

BACKGROUND = "#f4f5f7"
INK = "#171b21"
"""Color of the first line of a caption."""
SECONDARY_INK = "#4d5866"
"""Color of the other lines of a caption."""
EMPTY_FRAME = "#dfe4ea"
HIGHLIGHT = "#ffb000"
COLORS = ("#3ddc97", "#4cc9f0", "#ff8fc0", "#c9b1ff", "#f4f269", "#ff9f6b")
"""Colors that outlines take in turn if they are not highlighted. All contrast with the plate and
the halo."""
HIGHLIGHT_STROKE = 1.6
"""Stroke width of highlighted outlines divided by that of the others."""

MIN_LINEAR_FACTOR = 0.5
"""Minimum scale factor at which pictures are reduced by linear interpolation; at smaller factors,
pixels are averaged by area."""

MIN_ENLARGEMENT = 1.25
"""Minimum factor by which a thumbnail is enlarged to fill its frame; below it, its pixels stay."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """A polygon to draw on a picture, and its label."""

    points: Sequence[Point]
    """Corners (x, y), in pixels of the picture as shown."""
    lines: Sequence[str] = ()
    """Lines of the label; empty: no label."""
    is_highlighted: bool = False


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A thumbnail to draw next to the picture."""

    width: int
    """Width as shown, in pixels."""
    height: int
    """Height as shown, in pixels."""
    pixels: Pixels | None = None
    """uint8 RGB, [height, width, 3], decoded at any reduction; None if the file is damaged."""


@dataclass(frozen=True, slots=True)
class CaptionedThumbnail:
    """A thumbnail and its caption."""

    thumbnail: Thumbnail | None
    """The thumbnail; None: an empty frame is drawn."""
    lines: Sequence[str] = ()
    """Lines of the caption."""


def render(
    picture: Picture,
    annotations: Sequence[Annotation],
    captioned: Sequence[CaptionedThumbnail],
    max_side_px: int,
) -> Pixels:
    """Render a drawing. CPU-bound: call it in a worker thread.

    Args:
        picture: decoded picture.
        annotations: outlines and labels to draw on the picture.
        captioned: thumbnails to draw next to it, the most important first.
        max_side_px: maximum width and height of the drawing.

    Returns:
        uint8 RGB, [height, width, 3].
    """
    metrics = Metrics.of(max_side_px)
    layout = _lay_out((picture.width, picture.height), captioned, metrics)
    canvas = Canvas(layout.width, layout.height, BACKGROUND)
    frame = layout.picture
    resized = _resized(np.asarray(picture.image), int(frame.width), int(frame.height))
    canvas.paste(resized, int(frame.x_min), int(frame.y_min))
    outlines = _outlines(annotations, picture, frame)
    _draw_outlines(canvas, outlines, metrics)
    draw_labels(canvas, outlines, layout.room, metrics)
    for cell, thumbnail in zip(layout.cells, captioned, strict=False):
        _draw_cell(canvas, cell, thumbnail, metrics)
    return canvas.pixels


def thumbnail_reductions(
    size: tuple[int, int], captioned: Sequence[CaptionedThumbnail], max_side_px: int
) -> list[float]:
    """Return the factor by which decoding may divide the sides of each thumbnail.

    CPU-bound: call it in a worker thread.

    Args:
        size: width and height of the picture as shown, in pixels.
        captioned: thumbnails to draw next to it.
        max_side_px: maximum width and height of the drawing.

    Returns:
        The factors of the thumbnails that have a frame in the drawing, in order.
    """
    layout = _lay_out(size, captioned, Metrics.of(max_side_px))
    return [
        1.0
        if item.thumbnail is None
        else max(item.thumbnail.width / cell.frame.width, item.thumbnail.height / cell.frame.height)
        for cell, item in zip(layout.cells, captioned, strict=False)
    ]


def _lay_out(
    size: tuple[int, int], captioned: Sequence[CaptionedThumbnail], metrics: Metrics
) -> Layout:
    if not captioned:
        return picture_layout(*size, metrics)
    cells = [_cell(item.thumbnail, item.lines, metrics) for item in captioned]
    return thumbnails_layout(*size, cells, metrics)


def _cell(thumbnail: Thumbnail | None, lines: Sequence[str], metrics: Metrics) -> Cell:
    line_sizes = [
        natural_size_px(line, _caption_style(metrics, number)) for number, line in enumerate(lines)
    ]
    if thumbnail is None:
        return Cell(aspect_ratio=1.0, lines=line_sizes)
    return Cell(thumbnail.width / thumbnail.height, line_sizes, thumbnail.width)


def _outlines(annotations: Sequence[Annotation], picture: Picture, frame: Box) -> list[Outline]:
    """Convert annotations to outlines in pixels of the drawing; highlighted outlines are last.

    Points outside the picture move to its edge.
    """
    x_factor, y_factor = frame.width / picture.width, frame.height / picture.height
    outlines = []
    for number, annotation in enumerate(annotations):
        points = [
            (
                min(max(frame.x_min + x * x_factor, frame.x_min), frame.x_max),
                min(max(frame.y_min + y * y_factor, frame.y_min), frame.y_max),
            )
            for x, y in annotation.points
        ]
        color = HIGHLIGHT if annotation.is_highlighted else COLORS[number % len(COLORS)]
        outlines.append(Outline(points, annotation.lines, annotation.is_highlighted, color))
    return sorted(outlines, key=lambda outline: outline.is_highlighted)


def _draw_outlines(canvas: Canvas, outlines: Sequence[Outline], metrics: Metrics) -> None:
    stroke_px = max(1.5, metrics.font / 7)
    halo_px = max(1.0, stroke_px / 2)
    for outline in outlines:
        width_px = stroke_px * (HIGHLIGHT_STROKE if outline.is_highlighted else 1)
        canvas.outline(outline.points, outline.color, width_px, halo_px=halo_px)


def _draw_cell(
    canvas: Canvas, cell: PlacedCell, captioned: CaptionedThumbnail, metrics: Metrics
) -> None:
    frame = cell.frame
    thumbnail = captioned.thumbnail
    pixels = None
    if thumbnail is not None and thumbnail.pixels is not None:
        pixels = _fitted(thumbnail.pixels, frame)
    if pixels is None:
        canvas.crossed_box(frame, EMPTY_FRAME, BACKGROUND, max(1, metrics.font // 8))
    else:
        height, width = pixels.shape[:2]
        left = int(frame.x_min + (frame.width - width) // 2)
        canvas.paste(pixels, left, int(frame.y_max) - height)  # directly above the caption
    top = cell.caption_top
    for number, (line, max_rows) in enumerate(
        zip(captioned.lines, cell.rows_per_line, strict=False)
    ):
        style = _caption_style(metrics, number)
        for row in set_rows(line, style, width_px=int(frame.width), max_rows=max_rows):
            left = int(frame.x_max) - row.width_px if row.is_right_to_left else int(frame.x_min)
            canvas.row(row, left, top)
            top += row.height_px


def _fitted(pixels: Pixels, frame: Box) -> Pixels:
    """Resize a thumbnail to fit its frame."""
    height, width = pixels.shape[:2]
    factor = min(frame.width / width, frame.height / height)
    if 1 < factor < MIN_ENLARGEMENT:
        factor = 1.0
    return _resized(pixels, max(1, round(width * factor)), max(1, round(height * factor)))


def _caption_style(metrics: Metrics, line_number: int) -> Style:
    is_first = line_number == 0
    return Style(metrics.font, INK if is_first else SECONDARY_INK, bold=is_first)


def _resized(pixels: Pixels, width: int, height: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    factor = width / pixels.shape[1]
    if factor > 1:
        method = cv2.INTER_CUBIC
    else:  # averaging by area is slow, and visibly better only at strong reductions
        method = cv2.INTER_LINEAR if factor > MIN_LINEAR_FACTOR else cv2.INTER_AREA
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method), np.uint8)
