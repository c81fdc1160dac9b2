"""Where the picture and those beside it go, within a side that may not be exceeded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from imagesearch_services.embedding.geometry import Box

T = TypeVar("T")

CELL_SIZES = 14
"""Widths of a small picture that are tried, from the smallest to the largest."""
SMALLEST_CELL_EM = 4.0
LARGEST_CELL_SHARE = 0.34
"""Of the side."""
READABLE_SIDE_EM = 32
"""Smaller pictures are enlarged up to this, if there is room, so that words don't cover them."""
NARROWEST_EM = 16
"""A narrower drawing gets margins, if there is room, so that words have a place."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Lengths that everything is measured in, pixels."""

    side: int
    """What neither width nor height may exceed."""
    font: int
    row: int
    """From one row of text to the next."""
    gap: int

    @classmethod
    def of(cls, side: int) -> Metrics:
        """Scale to the drawing, never below what can be read."""
        font = max(11, round(side / 66))
        return cls(side=side, font=font, row=math.ceil(1.4 * font), gap=max(4, round(0.8 * font)))


@dataclass(frozen=True, slots=True)
class Cell:
    """A small picture with words under it, before it has a place."""

    ratio: float
    """Width to height of the picture."""
    line_widths_px: Sequence[int]
    """Of each line in one row."""


@dataclass(frozen=True, slots=True)
class PlacedCell:
    """Where a small picture and its words go."""

    frame: Box
    """Whole pixels; the picture is fitted into it."""
    caption_top: int
    rows_per_line: Sequence[int]
    """How many rows each line may take."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything goes, whole pixels."""

    width: int
    height: int
    picture: Box
    room: Box
    """The picture and the margins that words on it may use."""
    cells: Sequence[PlacedCell]


def alone(width: int, height: int, metrics: Metrics) -> Layout:
    """Give the picture all of the drawing, but for margins where it is very narrow."""
    factor = _factor(width, height, (metrics.side, metrics.side), metrics)
    picture, room = _with_margins(width * factor, height * factor, metrics.side, metrics)
    return Layout(int(room.width), int(room.height), picture, room, ())


def beside(width: int, height: int, cells: Sequence[Cell], metrics: Metrics) -> Layout:
    """Put cells to the right of the picture, or below, whichever leaves the pictures largest.

    As many cells are left out, from the last, as there is no room for.
    """
    for count in range(len(cells), 0, -1):
        best = max(
            _candidates(width, height, cells[:count], metrics),
            key=lambda scored: scored[0],
            default=None,
        )
        if best is not None:
            return best[1]
    return alone(width, height, metrics)


def _candidates(
    width: int, height: int, cells: Sequence[Cell], metrics: Metrics
) -> Iterator[tuple[float, Layout]]:
    """Try numbers of columns and sizes, each with how good it is."""
    smallest = math.ceil(SMALLEST_CELL_EM * metrics.font)
    largest = max(smallest, int(LARGEST_CELL_SHARE * metrics.side))
    steps = range(CELL_SIZES)
    sizes = {round(smallest * (largest / smallest) ** (step / (CELL_SIZES - 1))) for step in steps}
    ratio = sorted(cell.ratio for cell in cells)[len(cells) // 2]
    shape = min(max(ratio, 0.7), 1.5)
    for columns, cell_width in itertools.product(range(1, len(cells) + 1), sorted(sizes)):
        grid = _Grid(cells, columns, cell_width, round(cell_width / shape), metrics)
        for is_right in (True, False):
            layout = grid.beside(width, height, is_right=is_right)
            if layout is not None:
                yield _worth(layout, grid), layout


def _worth(layout: Layout, grid: _Grid) -> float:
    """Weigh the picture's size against the others', and both against empty paper."""
    picture = layout.picture.width * layout.picture.height
    small = len(layout.cells) * grid.cell_width * grid.cell_height
    paper = layout.width * layout.height
    used = (picture + grid.width * grid.height) / paper
    return math.log(picture) + 0.4 * math.log(small) + 1.5 * math.log(used)


class _Grid:
    """Cells in columns, not yet placed."""

    def __init__(
        self,
        cells: Sequence[Cell],
        columns: int,
        cell_width: int,
        cell_height: int,
        metrics: Metrics,
    ) -> None:
        self._cells = cells
        self._columns = columns
        self._metrics = metrics
        self.cell_width = cell_width
        self.cell_height = cell_height
        self._rows_per_line = [
            [1, *(1 if line <= cell_width else 2 for line in cell.line_widths_px[1:])]
            for cell in cells
        ]
        self._caption_heights = [
            metrics.row * max(map(sum, batch)) + metrics.gap // 2
            for batch in _batched(self._rows_per_line, columns)
        ]
        lines = len(self._caption_heights)
        self.width = columns * cell_width + (columns - 1) * metrics.gap
        self.height = lines * cell_height + sum(self._caption_heights) + (lines - 1) * metrics.gap

    def beside(self, width: int, height: int, *, is_right: bool) -> Layout | None:
        """Put a picture beside the cells; None where nothing worth seeing is left of it."""
        side, gap = self._metrics.side, self._metrics.gap
        right, below = (self.width + gap, 0) if is_right else (0, self.height + gap)
        x_room, y_room = side - 2 * gap - right, side - 2 * gap - below
        if min(x_room, y_room) < 1 or max(self.width, self.height) > side - 2 * gap:
            return None
        factor = _factor(width, height, (x_room, y_room), self._metrics)
        picture, room = _with_margins(
            width * factor, height * factor, min(x_room, y_room), self._metrics
        )
        whole_width = 2 * gap + int(max(room.width + right, self.width))
        whole_height = 2 * gap + int(max(room.height + below, self.height))
        if is_right:
            x, y = gap, gap
            left, top = int(room.x_max) + 2 * gap, gap
        else:
            x, y = (whole_width - int(room.width)) // 2, gap
            left, top = (whole_width - self.width) // 2, int(room.y_max) + 2 * gap
        if picture.width * picture.height < self.cell_width * self.cell_height:
            return None
        return Layout(
            whole_width,
            whole_height,
            picture.moved(x, y),
            room.moved(x, y),
            self._placed(left, top),
        )

    def _placed(self, left: int, top: int) -> list[PlacedCell]:
        gap = self._metrics.gap
        placed = []
        batches = _batched(self._rows_per_line, self._columns)
        for batch, caption_height in zip(batches, self._caption_heights, strict=True):
            for column, rows_per_line in enumerate(batch):
                x = left + column * (self.cell_width + gap)
                frame = Box(x, top, x + self.cell_width, top + self.cell_height)
                placed.append(PlacedCell(frame, top + self.cell_height + gap // 2, rows_per_line))
            top += self.cell_height + caption_height + gap
        return placed


def _factor(width: int, height: int, room: tuple[float, float], metrics: Metrics) -> float:
    """By what to scale a picture so that it fills the room; a small one not beyond that."""
    enlarged = max(1.0, READABLE_SIDE_EM * metrics.font / max(width, height))
    return min(room[0] / width, room[1] / height, enlarged)


def _with_margins(width: float, height: float, most: int, metrics: Metrics) -> tuple[Box, Box]:
    """Give a picture's box inside of its room, which is wider where the picture is very narrow."""
    width, height = max(1, round(width)), max(1, round(height))
    narrowest = min(most, NARROWEST_EM * metrics.font)
    room = Box(0, 0, max(width, narrowest), max(height, narrowest))
    left, top = (room.width - width) // 2, (room.height - height) // 2
    return Box(left, top, left + width, top + height), room


def _batched(items: Sequence[T], count: int) -> list[Sequence[T]]:
    return [items[first : first + count] for first in range(0, len(items), count)]
