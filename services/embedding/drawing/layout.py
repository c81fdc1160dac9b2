"""Where the picture and those beside it go, within a side that may not be exceeded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from imagesearch_services.common.types import Box

CELL_SIZES = 6
"""Widths of a small picture that are tried, from the smallest to the largest."""
SMALLEST_CELL_EM = 4.0
LARGEST_CELL_SHARE = 0.34
"""Of the side."""
READABLE_CELL_EM = 10
"""Wide enough for words. A cell is no wider where its picture is not: enlarging shows no more."""
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
    gap: int

    @classmethod
    def of(cls, side: int) -> Metrics:
        """Scale to the drawing, never below what can be read."""
        font = max(11, round(side / 66))
        return cls(side=side, font=font, gap=max(4, round(0.8 * font)))


@dataclass(frozen=True, slots=True)
class Cell:
    """A small picture with words under it, before it has a place."""

    ratio: float
    """Width to height of the picture."""
    lines: Sequence[tuple[int, int]]
    """Width and height of each line of words in one row, pixels."""
    width: int = 0
    """Of the picture's own pixels; 0: there is none."""


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
    margins = _Margins.of(width * factor, height * factor, metrics.side, metrics)
    return Layout(margins.room_width, margins.room_height, *margins.boxes(0, 0), ())


def beside(width: int, height: int, cells: Sequence[Cell], metrics: Metrics) -> Layout:
    """Put cells to the right of the picture, or below, whichever leaves the pictures largest.

    As many cells are left out, from the last, as there is no room for.
    """
    for count in range(len(cells), 0, -1):
        arrangements = _arrangements(width, height, cells[:count], metrics)
        best = max(arrangements, key=lambda one: one.worth, default=None)
        if best is not None:
            return best.layout()
    return alone(width, height, metrics)


def _arrangements(
    width: int, height: int, cells: Sequence[Cell], metrics: Metrics
) -> Iterator[_Arrangement]:
    """Try numbers of columns and sizes of cells, to the right and below."""
    smallest = math.ceil(SMALLEST_CELL_EM * metrics.font)
    widths = sorted(cell.width for cell in cells)
    widest = max(READABLE_CELL_EM * metrics.font, widths[len(cells) // 2])
    largest = max(smallest, min(int(LARGEST_CELL_SHARE * metrics.side), widest))
    steps = range(CELL_SIZES)
    sizes = {round(smallest * (largest / smallest) ** (step / (CELL_SIZES - 1))) for step in steps}
    ratio = sorted(cell.ratio for cell in cells)[len(cells) // 2]
    shape = min(max(ratio, 0.7), 1.5)
    # Of the numbers of columns that need as many rows, the fewest leave the least paper empty.
    by_rows = {math.ceil(len(cells) / each): each for each in range(len(cells), 0, -1)}
    captions = [_Captions.of(cells, cell_width) for cell_width in sorted(sizes)]
    for columns, under in itertools.product(by_rows.values(), captions):
        grid = _Grid(under, columns, round(under.width / shape), metrics)
        if max(grid.width, grid.height) > metrics.side - 2 * metrics.gap:
            continue
        for is_right in (True, False):
            arrangement = _Arrangement(width, height, grid, metrics, is_right=is_right)
            if arrangement.is_possible:
                yield arrangement


class _Captions(NamedTuple):
    """The words under cells of one width."""

    width: int
    rows_per_line: Sequence[Sequence[int]]
    heights: Sequence[int]

    @classmethod
    def of(cls, cells: Sequence[Cell], width: int) -> _Captions:
        """Give every line but the first of each cell a second row where it needs one."""
        rows_per_line = [
            [1 if row == 0 or line <= width else 2 for row, (line, _) in enumerate(cell.lines)]
            for cell in cells
        ]
        heights = [
            sum(most * height for most, (_, height) in zip(rows, cell.lines, strict=True))
            for rows, cell in zip(rows_per_line, cells, strict=True)
        ]
        return cls(width, rows_per_line, heights)


class _Grid:
    """Cells in columns, not yet placed."""

    def __init__(
        self, captions: _Captions, columns: int, cell_height: int, metrics: Metrics
    ) -> None:
        self._columns = columns
        self._gap = metrics.gap
        self.cell_width = cell_width = captions.width
        self.cell_height = cell_height
        self.count = len(captions.heights)
        firsts = range(0, self.count, columns)
        self._lines = [captions.rows_per_line[first : first + columns] for first in firsts]
        self._caption_heights = [
            max(captions.heights[first : first + columns]) + self._gap // 2 for first in firsts
        ]
        self.width = columns * cell_width + (columns - 1) * self._gap
        self.height = (
            len(self._lines) * (cell_height + self._gap) + sum(self._caption_heights) - self._gap
        )

    def placed(self, left: int, top: int) -> list[PlacedCell]:
        """Place the cells below and to the right of a point."""
        placed = []
        for line, caption_height in zip(self._lines, self._caption_heights, strict=True):
            for column, rows_per_line in enumerate(line):
                x = left + column * (self.cell_width + self._gap)
                frame = Box(x, top, x + self.cell_width, top + self.cell_height)
                placed.append(
                    PlacedCell(frame, top + self.cell_height + self._gap // 2, rows_per_line)
                )
            top += self.cell_height + caption_height + self._gap
        return placed


class _Arrangement:
    """A picture with a grid to its right or below, sized but not yet placed."""

    def __init__(
        self, width: int, height: int, grid: _Grid, metrics: Metrics, *, is_right: bool
    ) -> None:
        gap = metrics.gap
        right, below = (grid.width + gap, 0) if is_right else (0, grid.height + gap)
        x_room, y_room = metrics.side - 2 * gap - right, metrics.side - 2 * gap - below
        self._grid = grid
        self._gap = gap
        self._is_right = is_right
        self.is_possible = min(x_room, y_room) >= 1
        if not self.is_possible:
            return
        factor = _factor(width, height, (x_room, y_room), metrics)
        self._margins = _Margins.of(width * factor, height * factor, min(x_room, y_room), metrics)
        self._width = 2 * gap + max(self._margins.room_width + right, grid.width)
        self._height = 2 * gap + max(self._margins.room_height + below, grid.height)
        self._picture_area = self._margins.width * self._margins.height
        # The picture is what it is about: no smaller than those beside it.
        self.is_possible = self._picture_area >= grid.cell_width * grid.cell_height

    @property
    def worth(self) -> float:
        """Weigh the picture's size against the others', and both against empty paper."""
        small = self._grid.count * self._grid.cell_width * self._grid.cell_height
        used = self._picture_area + self._grid.width * self._grid.height
        paper = self._width * self._height
        return math.log(self._picture_area) + 0.4 * math.log(small) + 1.5 * math.log(used / paper)

    def layout(self) -> Layout:
        gap, margins, grid = self._gap, self._margins, self._grid
        if self._is_right:
            x, left, top = gap, margins.room_width + 2 * gap, gap
        else:
            x, top = (self._width - margins.room_width) // 2, margins.room_height + 2 * gap
            left = x if grid.width <= margins.room_width else gap
        picture, room = margins.boxes(x, gap)
        return Layout(self._width, self._height, picture, room, grid.placed(left, top))


class _Margins(NamedTuple):
    """A picture's size, and that of its room, which is larger where the picture is very narrow."""

    width: int
    height: int
    room_width: int
    room_height: int

    @classmethod
    def of(cls, width: float, height: float, most: int, metrics: Metrics) -> _Margins:
        """Round a picture's size and give it a room, no larger than `most` by its margins."""
        shown_width, shown_height = max(1, round(width)), max(1, round(height))
        narrowest = min(most, NARROWEST_EM * metrics.font)
        return cls(
            shown_width, shown_height, max(shown_width, narrowest), max(shown_height, narrowest)
        )

    def boxes(self, x: int, y: int) -> tuple[Box, Box]:
        """Place the room there and the picture in its middle."""
        left = x + (self.room_width - self.width) // 2
        top = y + (self.room_height - self.height) // 2
        return (
            Box(left, top, left + self.width, top + self.height),
            Box(x, y, x + self.room_width, y + self.room_height),
        )


def _factor(width: int, height: int, room: tuple[float, float], metrics: Metrics) -> float:
    """By what to scale a picture so that it fills the room; a small one not beyond that."""
    enlarged = max(1.0, READABLE_SIDE_EM * metrics.font / max(width, height))
    return min(room[0] / width, room[1] / height, enlarged)
