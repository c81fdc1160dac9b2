"""Windows: parts of a picture that a dense model describes in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.preprocess import InputSpec, Resize

STEP_PX = 32
"""Granularity of the sides of a dense model's input, pixels."""


@dataclass(frozen=True, slots=True)
class Level:
    """Windows of one size, spaced evenly from edge to edge."""

    width: float
    """Share of the region's width."""
    height: float
    """Share of the region's height."""
    across: int
    """Windows in each row."""
    down: int
    """Rows of windows."""


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of one model."""

    levels: tuple[Level, ...]
    side_px: int
    """Long side of the model's input."""

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Windows:
        """Read the windows from a model's parameters.

        Raises:
            KeyError: a parameter is missing.
            ValueError: a parameter is invalid.
        """
        side_px = int(parameters["windows_side_px"])
        if side_px < STEP_PX:
            raise ValueError(f"windows_side_px is {side_px}, but must be at least {STEP_PX}")
        return cls(tuple(_level(text) for text in parameters["windows"].split(",")), side_px)

    @property
    def count(self) -> int:
        return sum(level.across * level.down for level in self.levels)

    @property
    def max_pixels(self) -> int:
        """Maximum pixels of the model's input for any region."""
        return self.side_px**2

    def input_for(self, region: Box) -> InputSpec:
        """Return the input size for a region: its aspect ratio, as nearly as the steps allow."""
        factor = self.side_px / max(region.width, region.height)
        return InputSpec(
            _in_steps(region.width * factor), _in_steps(region.height * factor), Resize.SQUASH
        )

    def boxes(self, region: Box) -> list[Box]:
        """Return the windows of a region: by level, then rows from the top, each from the left."""
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
        raise ValueError(f"{text} does not describe windows")
    return Level(width, height, across, down)


def _starts(first: float, length: float, count: int) -> list[float]:
    return [first + length * number / max(1, count - 1) for number in range(count)]


def _in_steps(length_px: float) -> int:
    return max(2, round(length_px / STEP_PX)) * STEP_PX
