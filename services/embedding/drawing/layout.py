"""Lays out a picture and its captioned thumbnails within a maximum side length."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from imagesearch_services.common.types import Box

CELL_SIZES = 6
"""Number of thumbnail widths to try, from the smallest to the largest."""
MIN_CELL_EM = 4.0
"""Minimum width of a thumbnail, in font sizes."""
MAX_CELL_SHARE = 0.34
"""Maximum width of a thumbnail, as a share of the maximum side of the drawing."""
READABLE_CELL_EM = 10
"""Width that a caption needs, in font sizes. A cell is wider only if most thumbnails have as many
pixels, since enlarged thumbnails show no more detail."""
READABLE_SIDE_EM = 32
"""Long side up to which a smaller picture is enlarged, in font sizes, so that labels don't cover
it."""
MIN_ROOM_EM = 16
"""Minimum width and height of the area for labels, in font sizes; a smaller picture gets margins.
"""
CELL_ASPECT_RANGE = (0.7, 1.5)
"""Minimum and maximum width of a thumbnail's frame divided by its height."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Lengths that all parts of a layout share, in pixels."""

    side: int
    """Maximum width and height of the drawing."""
    font: int
    """Font size."""
    gap: int
    """Space between cells and around them."""

    @classmethod
    def of(cls, side: int) -> Metrics:
        """Scale the lengths to the drawing; the font stays readable."""
        font = max(11, round(side / 66))
        return cls(side=side, font=font, gap=max(4, round(0.8 * font)))


@dataclass(frozen=True, slots=True)
class Cell:
    """A captioned thumbnail that has no position yet."""

    aspect_ratio: float
    """Width of the thumbnail divided by its height."""
    lines: Sequence[tuple[int, int]]
    """Width and height of each line of the caption when it is set in one row, in pixels."""
    width: int = 0
    """Width of the thumbnail in its own pixels; 0 for an empty frame."""


@dataclass(frozen=True, slots=True)
class PlacedCell:
    """The position of a thumbnail and its caption."""

    frame: Box
    """The box that the thumbnail is fitted into, whole pixels."""
    caption_top: int
    """y of the top edge of the caption, in pixels."""
    rows_per_line: Sequence[int]
    """Maximum rows for each line of the caption."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Size of a drawing and the positions of its parts, whole pixels."""

    width: int
    height: int
    picture: Box
    room: Box
    """Area for labels: the picture and its margins."""
    cells: Sequence[PlacedCell]


def picture_layout(width: int, height: int, metrics: Metrics) -> Layout:
    """Lay out a picture without thumbnails; a very narrow picture gets margins."""
    factor = _scale_factor(width, height, (metrics.side, metrics.side), metrics)
    margins = _Margins.of(width * factor, height * factor, metrics.side, metrics)
    return Layout(margins.room_width, margins.room_height, *margins.boxes(0, 0), ())


def thumbnails_layout(width: int, height: int, cells: Sequence[Cell], metrics: Metrics) -> Layout:
    """Lay out thumbnails to the right of a picture or below it, whichever shows more.

    The last cells are dropped if there is no room for all of them.
    """
    for count in range(len(cells), 0, -1):
        arrangements = _arrangements(width, height, cells[:count], metrics)
        best = max(arrangements, key=lambda arrangement: arrangement.score, default=None)
        if best is not None:
            return best.layout()
    return picture_layout(width, height, metrics)


def _arrangements(
    width: int, height: int, cells: Sequence[Cell], metrics: Metrics
) -> Iterator[_Arrangement]:
    """Yield arrangements with different numbers of columns, cell sizes and sides."""
    median_aspect_ratio = sorted(cell.aspect_ratio for cell in cells)[len(cells) // 2]
    min_aspect_ratio, max_aspect_ratio = CELL_ASPECT_RANGE
    aspect_ratio = min(max(median_aspect_ratio, min_aspect_ratio), max_aspect_ratio)
    # Of the column counts that need the same number of rows, the smallest leaves the fewest
    # positions empty.
    by_rows = {math.ceil(len(cells) / columns): columns for columns in range(len(cells), 0, -1)}
    captions = [_Captions.of(cells, cell_width) for cell_width in _cell_widths(cells, metrics)]
    for columns, caption in itertools.product(by_rows.values(), captions):
        grid = _Grid(caption, columns, round(caption.width / aspect_ratio), metrics)
        if max(grid.width, grid.height) > metrics.side - 2 * metrics.gap:
            continue
        for is_right in (True, False):
            arrangement = _Arrangement(width, height, grid, metrics, is_right=is_right)
            if arrangement.is_possible:
                yield arrangement


def _cell_widths(cells: Sequence[Cell], metrics: Metrics) -> list[int]:
    """Return the thumbnail widths to try, ascending, in pixels."""
    smallest = math.ceil(MIN_CELL_EM * metrics.font)
    median_width = sorted(cell.width for cell in cells)[len(cells) // 2]
    widest = max(READABLE_CELL_EM * metrics.font, median_width)
    largest = max(smallest, min(int(MAX_CELL_SHARE * metrics.side), widest))
    steps = range(CELL_SIZES)
    return sorted(
        {round(smallest * (largest / smallest) ** (step / (CELL_SIZES - 1))) for step in steps}
    )


class _Captions(NamedTuple):
    """The captions of cells of one width."""

    width: int
    """Width of each cell, in pixels."""
    rows_per_line: Sequence[Sequence[int]]
    """Maximum rows for each line, by cell."""
    heights: Sequence[int]
    """Height of each cell's caption, in pixels."""

    @classmethod
    def of(cls, cells: Sequence[Cell], width: int) -> _Captions:
        """Allow one row for the first line of a caption, and two rows for other lines if needed."""
        rows_per_line = [
            [
                1 if number == 0 or line_width <= width else 2
                for number, (line_width, _) in enumerate(cell.lines)
            ]
            for cell in cells
        ]
        heights = [
            sum(
                rows * line_height
                for rows, (_, line_height) in zip(counts, cell.lines, strict=True)
            )
            for counts, cell in zip(rows_per_line, cells, strict=True)
        ]
        return cls(width, rows_per_line, heights)


class _Grid:
    """Cells in rows and columns, sized but not yet placed."""

    def __init__(
        self, captions: _Captions, columns: int, cell_height: int, metrics: Metrics
    ) -> None:
        self._gap = metrics.gap
        self.cell_width = cell_width = captions.width
        self.cell_height = cell_height
        self.count = len(captions.heights)
        starts = range(0, self.count, columns)
        self._grid_rows = [captions.rows_per_line[start : start + columns] for start in starts]
        self._caption_heights = [
            max(captions.heights[start : start + columns]) + self._gap // 2 for start in starts
        ]
        self.width = columns * cell_width + (columns - 1) * self._gap
        self.height = (
            len(self._grid_rows) * (cell_height + self._gap)
            + sum(self._caption_heights)
            - self._gap
        )

    def placed(self, left: int, top: int) -> list[PlacedCell]:
        """Return the cells with the grid's top-left corner at (left, top)."""
        cells = []
        for grid_row, caption_height in zip(self._grid_rows, self._caption_heights, strict=True):
            for column, rows_per_line in enumerate(grid_row):
                x = left + column * (self.cell_width + self._gap)
                frame = Box(x, top, x + self.cell_width, top + self.cell_height)
                caption_top = top + self.cell_height + self._gap // 2
                cells.append(PlacedCell(frame, caption_top, rows_per_line))
            top += self.cell_height + caption_height + self._gap
        return cells


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
        factor = _scale_factor(width, height, (x_room, y_room), metrics)
        self._margins = _Margins.of(width * factor, height * factor, min(x_room, y_room), metrics)
        self._width = 2 * gap + max(self._margins.room_width + right, grid.width)
        self._height = 2 * gap + max(self._margins.room_height + below, grid.height)
        self._picture_area = self._margins.width * self._margins.height
        # The picture is the subject of the drawing: it must not be smaller than a thumbnail.
        self.is_possible = self._picture_area >= grid.cell_width * grid.cell_height

    @property
    def score(self) -> float:
        """Value of the arrangement: large picture, large thumbnails, little unused area."""
        thumbnail_area = self._grid.count * self._grid.cell_width * self._grid.cell_height
        used_area = self._picture_area + self._grid.width * self._grid.height
        total_area = self._width * self._height
        return (
            math.log(self._picture_area)
            + 0.4 * math.log(thumbnail_area)
            + 1.5 * math.log(used_area / total_area)
        )

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
    """Sizes of a scaled picture and of its area for labels; a narrow picture has margins."""

    width: int
    height: int
    room_width: int
    room_height: int

    @classmethod
    def of(cls, width: float, height: float, max_room: int, metrics: Metrics) -> _Margins:
        """Round a picture's size and add margins up to the minimum size of the area for labels.

        Args:
            width: width of the scaled picture, in pixels.
            height: height of the scaled picture, in pixels.
            max_room: upper bound of that minimum size, in pixels.
            metrics: lengths of the layout.
        """
        rounded_width, rounded_height = max(1, round(width)), max(1, round(height))
        min_room = min(max_room, MIN_ROOM_EM * metrics.font)
        return cls(
            rounded_width,
            rounded_height,
            max(rounded_width, min_room),
            max(rounded_height, min_room),
        )

    def boxes(self, x: int, y: int) -> tuple[Box, Box]:
        """Return the boxes of the picture and of the area for labels, whose corner is at (x, y)."""
        left = x + (self.room_width - self.width) // 2
        top = y + (self.room_height - self.height) // 2
        return (
            Box(left, top, left + self.width, top + self.height),
            Box(x, y, x + self.room_width, y + self.room_height),
        )


def _scale_factor(width: int, height: int, room: tuple[float, float], metrics: Metrics) -> float:
    """Return the factor that fits a picture into the available room; it bounds the enlargement."""
    max_enlargement = max(1.0, READABLE_SIDE_EM * metrics.font / max(width, height))
    return min(room[0] / width, room[1] / height, max_enlargement)
