"""Windows: the parts of a picture that a dense model describes in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.preprocess import InputSpec, Resize

STEP_PX = 32
"""Sides of a dense model's input are multiples of it."""


@dataclass(frozen=True, slots=True)
class Level:
    """Windows of one size, evenly from edge to edge."""

    width: float
    """As a share of the picture's."""
    height: float
    across: int
    down: int


@dataclass(frozen=True, slots=True)
class Windows:
    """Those of one model."""

    levels: tuple[Level, ...]
    side_px: int
    """Long side of the model's input."""

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Windows:
        """Read a model's parameters.

        Raises:
            KeyError: something is missing.
            ValueError: something can't be read.
        """
        side_px = int(parameters["windows_side_px"])
        if side_px < STEP_PX:
            raise ValueError(f"windows_side_px is {side_px}, {STEP_PX} is the least")
        return cls(tuple(_level(each) for each in parameters["windows"].split(",")), side_px)

    @property
    def count(self) -> int:
        return sum(level.across * level.down for level in self.levels)

    @property
    def most_pixels(self) -> int:
        """Of a model's input, whatever the region."""
        return self.side_px**2

    def input_for(self, region: Box) -> InputSpec:
        """Say what a region is brought to: its aspect, as nearly as the steps allow."""
        factor = self.side_px / max(region.width, region.height)
        return InputSpec(
            _in_steps(region.width * factor), _in_steps(region.height * factor), Resize.SQUASH
        )

    def boxes(self, region: Box) -> list[Box]:
        """Give the windows of a region: level by level, rows from the top, each from the left."""
        return [
            Box(x, y, x + region.width * level.width, y + region.height * level.height)
            for level in self.levels
            for y in _starts(region.y_min, region.height * (1 - level.height), level.down)
            for x in _starts(region.x_min, region.width * (1 - level.width), level.across)
        ]


def _level(text: str) -> Level:
    shares, counts = text.split(":")
    width, height = (float(share) for share in shares.split("x"))
    across, down = (int(count) for count in counts.split("x"))
    if not (0 < width <= 1 and 0 < height <= 1 and across > 0 and down > 0):
        raise ValueError(f"{text} are no windows")
    return Level(width, height, across, down)


def _starts(first: float, length: float, count: int) -> list[float]:
    return [first + length * number / max(1, count - 1) for number in range(count)]


def _in_steps(length_px: float) -> int:
    return max(2, round(length_px / STEP_PX)) * STEP_PX
