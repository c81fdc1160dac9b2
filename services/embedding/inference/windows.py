"""Defines the windows of a picture, boxes that a dense model describes in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.pictures.preprocess import InputSpec, Resize

STEP_PX = 32
"""Granularity of the sides of a dense model's input, in pixels."""


@dataclass(frozen=True, slots=True)
class Level:
    """A grid of windows of one size, spaced evenly from edge to edge."""

    width: float
    """Width of a window, as a share of the region's width."""
    height: float
    """Height of a window, as a share of the region's height."""
    columns: int
    """Number of windows in each row."""
    rows: int
    """Number of rows of windows."""


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of one model."""

    levels: tuple[Level, ...]
    side_px: int
    """Long side of the model's input, in pixels."""

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Windows:
        """Read the windows from a model's parameters.

        `windows` is a comma-separated list of levels `WIDTHxHEIGHT:COLUMNSxROWS`, the sides as
        shares; `windows_side_px` is the long side of the model's input.

        Raises:
            KeyError: a parameter is missing.
            ValueError: a parameter is malformed or out of range.
        """
        side_px = int(parameters["windows_side_px"])
        if side_px < STEP_PX:
            raise ValueError(f"windows_side_px is {side_px}; the minimum is {STEP_PX}")
        return cls(tuple(_read_level(level) for level in parameters["windows"].split(",")), side_px)

    @property
    def count(self) -> int:
        """Number of windows."""
        return sum(level.columns * level.rows for level in self.levels)

    @property
    def max_pixels(self) -> int:
        """Upper bound of the pixels of the model's input."""
        return self.side_px**2

    def input_for(self, region: Box) -> InputSpec:
        """Return the model's input for a region.

        Its aspect ratio is approximately that of the region; its sides are multiples of `STEP_PX`.
        """
        factor = self.side_px / max(region.width, region.height)
        return InputSpec(
            _rounded_to_step(region.width * factor),
            _rounded_to_step(region.height * factor),
            Resize.SQUASH,
        )

    def boxes(self, region: Box) -> list[Box]:
        """Return the windows of a region, level by level, row by row from the top left."""
        return [
            Box(x, y, x + region.width * level.width, y + region.height * level.height)
            for level in self.levels
            for y in _starts(region.y_min, region.height * (1 - level.height), level.rows)
            for x in _starts(region.x_min, region.width * (1 - level.width), level.columns)
        ]


def _read_level(text: str) -> Level:
    shares, counts = text.split(":")
    width, height = (float(share) for share in shares.split("x"))
    columns, rows = (int(count) for count in counts.split("x"))
    if not (0 < width <= 1 and 0 < height <= 1 and columns > 0 and rows > 0):
        raise ValueError(
            f"windows has {text!r}; shares must be above 0 and at most 1, counts at least 1"
        )
    return Level(width, height, columns, rows)


def _starts(first: float, length: float, count: int) -> list[float]:
    """Return evenly spaced positions from `first` to `first + length`; `first` if `count` is 1."""
    return [first + length * number / max(1, count - 1) for number in range(count)]


def _rounded_to_step(length_px: float) -> int:
    return max(2, round(length_px / STEP_PX)) * STEP_PX
