"""A picture drawn: its outlines with their labels, and other pictures beside it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.drawing.canvas import Canvas, Point
from imagesearch_services.embedding.drawing.layout import (
    Cell,
    Layout,
    Metrics,
    PlacedCell,
    alone,
    beside,
)
from imagesearch_services.embedding.drawing.placement import Label, place
from imagesearch_services.embedding.drawing.text import (
    Pixels,
    Row,
    Style,
    natural_size_px,
    set_rows,
)
from imagesearch_services.embedding.pictures import Picture

PAPER = "#f4f5f7"
INK = "#171b21"
QUIET = "#4d5866"
FRAME = "#dfe4ea"
PLATE = "#0b0d10"
PLATE_INK = "#ffffff"
HIGHLIGHT = "#ffb000"
COLORS = ("#3ddc97", "#4cc9f0", "#ff8fc0", "#c9b1ff", "#f4f269", "#ff9f6b")
"""Of outlines that are not highlighted, in turns. All stand out from the plate and from a halo."""

LINEAR_FACTOR = 0.5
"""Pictures are shrunk by interpolation down to this, by averages beyond."""

LEAST_ENLARGED = 1.25
"""Small pictures keep their pixels where less than this would fill their frames."""

LABEL_SHARE = 0.62
"""Of the drawing's width that a label may take."""
LABEL_ROWS = 6
LABELLED_SHARE = 0.5
"""Of the picture that all labels together may hide."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """A shape to draw on a picture."""

    points: Sequence[Point]
    """Corners, pixels of the picture as shown."""
    lines: Sequence[str] = ()
    is_highlighted: bool = False


@dataclass(frozen=True, slots=True)
class SmallPicture:
    """A picture that is not decoded before its place is known: smaller is cheaper."""

    width: int
    """As shown, pixels."""
    height: int
    decode: Callable[[float], Pixels | None]
    """Give height × width × RGB, the sides divided by at most so much; None where it is damaged."""


@dataclass(frozen=True, slots=True)
class CaptionedPicture:
    """A small picture and the words under it."""

    picture: SmallPicture | None
    """None draws an empty frame."""
    lines: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Tag:
    """An annotation's words, set."""

    annotation: Annotation
    color: str
    rows: Sequence[Row]
    width: int
    height: int


def draw(
    picture: Picture,
    annotations: Sequence[Annotation],
    captioned: Sequence[CaptionedPicture],
    max_side_px: int,
) -> Pixels:
    """Draw. Takes a while: for a thread.

    Returns:
        Height × width × RGB; neither side is longer than asked.
    """
    metrics = Metrics.of(max_side_px)
    layout = _lay_out(picture, captioned, metrics)
    canvas = Canvas(layout.width, layout.height, PAPER)
    frame = layout.picture
    fitted = _resized(picture.image, int(frame.width), int(frame.height))
    canvas.paste(fitted, int(frame.x_min), int(frame.y_min))
    _annotate(canvas, annotations, picture, layout, metrics)
    for placed, each in zip(layout.cells, captioned, strict=False):
        _draw_cell(canvas, placed, each, metrics)
    return canvas.pixels


def _lay_out(picture: Picture, captioned: Sequence[CaptionedPicture], metrics: Metrics) -> Layout:
    if not captioned:
        return alone(picture.width, picture.height, metrics)
    cells = [
        Cell(
            ratio=1.0 if each.picture is None else each.picture.width / each.picture.height,
            lines=[
                natural_size_px(line, _caption_style(metrics, row))
                for row, line in enumerate(each.lines)
            ],
            width=0 if each.picture is None else each.picture.width,
        )
        for each in captioned
    ]
    return beside(picture.width, picture.height, cells, metrics)


def _annotate(
    canvas: Canvas,
    annotations: Sequence[Annotation],
    picture: Picture,
    layout: Layout,
    metrics: Metrics,
) -> None:
    """Draw all outlines, the highlighted ones over the others, then all labels over them."""
    frame = layout.picture
    x_factor, y_factor = frame.width / picture.width, frame.height / picture.height
    stroke_px = max(1.5, metrics.font / 7)
    halo_px = max(1.0, stroke_px / 2)
    drawn: list[tuple[Annotation, str]] = []
    for number, annotation in enumerate(annotations):
        points = [
            (
                min(max(frame.x_min + x * x_factor, frame.x_min), frame.x_max),
                min(max(frame.y_min + y * y_factor, frame.y_min), frame.y_max),
            )
            for x, y in annotation.points
        ]
        color = HIGHLIGHT if annotation.is_highlighted else COLORS[number % len(COLORS)]
        drawn.append((replace(annotation, points=points), color))
    drawn.sort(key=lambda each: each[0].is_highlighted)
    for annotation, color in drawn:
        width_px = stroke_px * (1.6 if annotation.is_highlighted else 1)
        canvas.outline(annotation.points, color, width_px, halo_px=halo_px)
    _label(canvas, drawn, layout.room, metrics)


def _label(
    canvas: Canvas, drawn: Sequence[tuple[Annotation, str]], bounds: Box, metrics: Metrics
) -> None:
    """Write labels where none hides another; where there is no room, fewer words, then fewer."""
    labelled = [each for each in reversed(drawn) if each[0].lines]
    tags = [_tag(annotation, color, bounds, metrics) for annotation, color in labelled]
    tags = [tag for tag in tags if tag.rows]
    places = _place(tags, bounds)
    if None in places:
        tags = [_shortened(tag, metrics) for tag in tags]
        places = _place(tags, bounds)
    placed = [(tag, spot) for tag, spot in zip(tags, places, strict=True) if spot is not None]
    for tag, spot in placed:
        _connect(canvas, bounding_box(tag.annotation.points), spot, tag.color, metrics)
    for tag, spot in placed:
        _write_tag(canvas, tag, spot, metrics)


def _place(tags: Sequence[_Tag], bounds: Box) -> list[Box | None]:
    """Place those tags, the first ones first, that leave enough of the picture to be seen."""
    budget = LABELLED_SHARE * bounds.width * bounds.height
    areas = itertools.accumulate(tag.width * tag.height for tag in tags)
    kept = [tag for tag, area in zip(tags, areas, strict=True) if area <= budget]
    places = place([_placeable(tag) for tag in kept], bounds)
    return [*places, *[None] * (len(tags) - len(kept))]


def _placeable(tag: _Tag) -> Label:
    points = tag.annotation.points
    box = bounding_box(points)
    is_upright = all(x in {box.x_min, box.x_max} and y in {box.y_min, box.y_max} for x, y in points)
    return Label(box, tag.width, tag.height, () if is_upright else points)


def _tag(annotation: Annotation, color: str, bounds: Box, metrics: Metrics) -> _Tag:
    margin = _margin(metrics)
    room = int(LABEL_SHARE * bounds.width if bounds.width > 12 * metrics.font else bounds.width)
    ink = PLATE if annotation.is_highlighted else PLATE_INK
    rows: list[Row] = []
    for number, line in enumerate(annotation.lines[:LABEL_ROWS]):
        style = Style(metrics.font, ink, bold=number == 0)
        rows += set_rows(line, style, width_px=room - 4 * margin, max_rows=1)
    return _sized(_Tag(annotation, color, rows, 0, 0), metrics)


def _shortened(tag: _Tag, metrics: Metrics) -> _Tag:
    return _sized(replace(tag, rows=tag.rows[:1]), metrics)


def _sized(tag: _Tag, metrics: Metrics) -> _Tag:
    margin = _margin(metrics)
    width = max((row.width_px for row in tag.rows), default=0) + 4 * margin
    height = sum(row.height_px for row in tag.rows) + margin
    return replace(tag, width=width, height=height)


def _write_tag(canvas: Canvas, tag: _Tag, spot: Box, metrics: Metrics) -> None:
    margin = _margin(metrics)
    canvas.plate(spot, PLATE, margin)
    if tag.annotation.is_highlighted:
        inner = Box(spot.x_min + 1, spot.y_min + 1, spot.x_max - 1, spot.y_max - 1)
        canvas.plate(inner, tag.color, margin)
    else:
        bar = Box(spot.x_min + 1, spot.y_min + 1, spot.x_min + 1 + margin, spot.y_max - 1)
        canvas.plate(bar, tag.color, margin // 2)
    left, top = int(spot.x_min) + 2 * margin, int(spot.y_min) + margin // 2
    right = int(spot.x_max) - 2 * margin
    for row in tag.rows:
        canvas.row(row, right - row.width_px if row.is_right_to_left else left, top)
        top += row.height_px


def _connect(canvas: Canvas, box: Box, spot: Box, color: str, metrics: Metrics) -> None:
    """Draw a line from a label to its box where they don't touch."""
    x = min(max((spot.x_min + spot.x_max) / 2, box.x_min), box.x_max)
    y = min(max((spot.y_min + spot.y_max) / 2, box.y_min), box.y_max)
    end = (min(max(x, spot.x_min), spot.x_max), min(max(y, spot.y_min), spot.y_max))
    if abs(end[0] - x) > 1 or abs(end[1] - y) > 1:
        canvas.line((x, y), end, color, max(1.0, metrics.font / 10), halo_px=1.0)


def _draw_cell(
    canvas: Canvas, placed: PlacedCell, captioned: CaptionedPicture, metrics: Metrics
) -> None:
    frame = placed.frame
    pixels = None if captioned.picture is None else _fitted(captioned.picture, frame)
    if pixels is None:
        canvas.crossed(frame, FRAME, PAPER, max(1, metrics.font // 8))
    else:
        height, width = pixels.shape[:2]
        left = int(frame.x_min + (frame.width - width) // 2)
        canvas.paste(pixels, left, int(frame.y_max) - height)  # on its words
    top = placed.caption_top
    for number, (line, most) in enumerate(zip(captioned.lines, placed.rows_per_line, strict=False)):
        style = _caption_style(metrics, number)
        for row in set_rows(line, style, width_px=int(frame.width), max_rows=most):
            left = int(frame.x_max) - row.width_px if row.is_right_to_left else int(frame.x_min)
            canvas.row(row, left, top)
            top += row.height_px


def _fitted(picture: SmallPicture, frame: Box) -> Pixels | None:
    """Decode a picture at the size that fills its frame on one side; None where it is damaged."""
    pixels = picture.decode(max(picture.width / frame.width, picture.height / frame.height))
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    factor = min(frame.width / width, frame.height / height)
    if 1 < factor < LEAST_ENLARGED:
        factor = 1.0
    return _resized(pixels, max(1, round(width * factor)), max(1, round(height * factor)))


def bounding_box(points: Sequence[Point]) -> Box:
    xs, ys = zip(*points, strict=True)
    return Box(min(xs), min(ys), max(xs), max(ys))


def _caption_style(metrics: Metrics, row: int) -> Style:
    return Style(metrics.font, INK if row == 0 else QUIET, bold=row == 0)


def _margin(metrics: Metrics) -> int:
    return max(2, metrics.font // 4)


def _resized(image: object, width: int, height: int) -> Pixels:
    pixels = np.asarray(image)
    if pixels.shape[:2] == (height, width):
        return pixels
    factor = width / pixels.shape[1]
    if factor > 1:
        method = cv2.INTER_CUBIC
    else:  # the average is slow, and only tells where many pixels become one
        method = cv2.INTER_LINEAR if factor > LINEAR_FACTOR else cv2.INTER_AREA
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method), np.uint8)
