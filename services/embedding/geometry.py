"""Boxes in pixels of a picture as shown."""

from __future__ import annotations

import math
from typing import NamedTuple


class Box(NamedTuple):
    """An upright rectangle: origin top-left, maxima exclusive, pixels."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float

    @property
    def width(self) -> float:
        return self.x_max - self.x_min

    @property
    def height(self) -> float:
        return self.y_max - self.y_min

    def clipped(self, width: int, height: int) -> Box | None:
        """Return what of the box lies in a picture; None where that is less than one pixel.

        A box that is inverted or holds NaN has nothing in any picture; infinite edges reach to
        the picture's own.
        """
        if any(math.isnan(edge) for edge in self):
            return None
        inside = Box(
            min(max(self.x_min, 0.0), width),
            min(max(self.y_min, 0.0), height),
            max(min(self.x_max, width), 0.0),
            max(min(self.y_max, height), 0.0),
        )
        return inside if inside.width >= 1 and inside.height >= 1 else None

    def scaled(self, x_factor: float, y_factor: float) -> Box:
        return Box(
            self.x_min * x_factor,
            self.y_min * y_factor,
            self.x_max * x_factor,
            self.y_max * y_factor,
        )

    def moved(self, x: float, y: float) -> Box:
        return Box(self.x_min + x, self.y_min + y, self.x_max + x, self.y_max + y)

    def grown(self, share: float) -> Box:
        """Return the box with a margin: this share of its sides on each side."""
        x_margin, y_margin = share * self.width, share * self.height
        return Box(
            self.x_min - x_margin,
            self.y_min - y_margin,
            self.x_max + x_margin,
            self.y_max + y_margin,
        )
