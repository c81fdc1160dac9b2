"""Typesets the labels of outlines and draws them next to their boxes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.drawing.canvas import Canvas, Point
from imagesearch_services.embedding.drawing.fonts import Style
from imagesearch_services.embedding.drawing.layout import Metrics
from imagesearch_services.embedding.drawing.placement import Label, place
from imagesearch_services.embedding.drawing.text import Row, set_rows

PLATE = "#0b0d10"
"""Color behind the text of labels."""
PLATE_INK = "#ffffff"

MAX_LABEL_SHARE = 0.62
"""Maximum width of a label, as a share of the width of the area for labels."""
MAX_LABEL_ROWS = 6
"""Maximum rows of text in a label."""
MAX_LABELLED_SHARE = 0.5
"""Maximum area of all labels together, as a share of the area for labels."""


@dataclass(frozen=True, slots=True)
class Outline:
    """An outline and the text of its label, with coordinates in pixels of the drawing."""

    points: Sequence[Point]
    lines: Sequence[str]
    is_highlighted: bool
    color: str


@dataclass(frozen=True, slots=True)
class _TypesetLabel:
    """The label of an outline, set in rows of text."""

    outline: Outline
    rows: Sequence[Row]
    width: int
    height: int


def draw_labels(canvas: Canvas, outlines: Sequence[Outline], bounds: Box, metrics: Metrics) -> None:
    """Draw labels that don't overlap.

    If there is no room for all, every label is shortened to its first row; labels that still have
    no room are dropped.
    """
    labels = [
        label
        for outline in reversed(outlines)
        if outline.lines and (label := _typeset(outline, bounds, metrics)).rows
    ]
    positions = _positions(labels, bounds)
    if None in positions:
        labels = [_sized(label.outline, label.rows[:1], metrics) for label in labels]
        positions = _positions(labels, bounds)
    placed = [
        (label, position)
        for label, position in zip(labels, positions, strict=True)
        if position is not None
    ]
    for label, position in placed:
        box = bounding_box(label.outline.points)
        _draw_connector(canvas, box, position, label.outline.color, metrics)
    for label, position in placed:
        _draw_label(canvas, label, position, metrics)


def _positions(labels: Sequence[_TypesetLabel], bounds: Box) -> list[Box | None]:
    """Place labels until they cover `MAX_LABELLED_SHARE` of the bounds; the others get None."""
    max_area = MAX_LABELLED_SHARE * bounds.width * bounds.height
    areas = itertools.accumulate(label.width * label.height for label in labels)
    kept = [label for label, area in zip(labels, areas, strict=True) if area <= max_area]
    positions = place([_placement_label(label) for label in kept], bounds)
    return [*positions, *[None] * (len(labels) - len(kept))]


def _placement_label(label: _TypesetLabel) -> Label:
    points = label.outline.points
    box = bounding_box(points)
    is_upright = all(x in {box.x_min, box.x_max} and y in {box.y_min, box.y_max} for x, y in points)
    return Label(box, label.width, label.height, () if is_upright else points)


def _typeset(outline: Outline, bounds: Box, metrics: Metrics) -> _TypesetLabel:
    is_wide = bounds.width > 12 * metrics.font
    max_width = int(MAX_LABEL_SHARE * bounds.width if is_wide else bounds.width)
    text_width = max_width - 4 * _padding(metrics)
    ink = PLATE if outline.is_highlighted else PLATE_INK
    rows: list[Row] = []
    for number, line in enumerate(outline.lines[:MAX_LABEL_ROWS]):
        style = Style(metrics.font, ink, bold=number == 0)
        rows += set_rows(line, style, width_px=text_width, max_rows=1)
    return _sized(outline, rows, metrics)


def _sized(outline: Outline, rows: Sequence[Row], metrics: Metrics) -> _TypesetLabel:
    padding = _padding(metrics)
    width = max((row.width_px for row in rows), default=0) + 4 * padding
    height = sum(row.height_px for row in rows) + padding
    return _TypesetLabel(outline, rows, width, height)


def _draw_label(canvas: Canvas, label: _TypesetLabel, position: Box, metrics: Metrics) -> None:
    padding = _padding(metrics)
    canvas.plate(position, PLATE, padding)
    x_min, y_min, x_max, y_max = position
    if label.outline.is_highlighted:
        inner = Box(x_min + 1, y_min + 1, x_max - 1, y_max - 1)
        canvas.plate(inner, label.outline.color, padding)
    else:
        bar = Box(x_min + 1, y_min + 1, x_min + 1 + padding, y_max - 1)
        canvas.plate(bar, label.outline.color, padding // 2)
    left, top = int(x_min) + 2 * padding, int(y_min) + padding // 2
    right = int(x_max) - 2 * padding
    for row in label.rows:
        canvas.row(row, right - row.width_px if row.is_right_to_left else left, top)
        top += row.height_px


def _draw_connector(canvas: Canvas, box: Box, position: Box, color: str, metrics: Metrics) -> None:
    """Draw a line from a label to its box if they don't touch."""
    x = min(max((position.x_min + position.x_max) / 2, box.x_min), box.x_max)
    y = min(max((position.y_min + position.y_max) / 2, box.y_min), box.y_max)
    end = (
        min(max(x, position.x_min), position.x_max),
        min(max(y, position.y_min), position.y_max),
    )
    if abs(end[0] - x) > 1 or abs(end[1] - y) > 1:
        canvas.line((x, y), end, color, max(1.0, metrics.font / 10), halo_px=1.0)


def bounding_box(points: Sequence[Point]) -> Box:
    """Return the smallest upright box that contains the points."""
    xs, ys = zip(*points, strict=True)
    return Box(min(xs), min(ys), max(xs), max(ys))


def _padding(metrics: Metrics) -> int:
    """Return the space between the text of a label and the edge of its plate, in pixels."""
    return max(2, metrics.font // 4)
