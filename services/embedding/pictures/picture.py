"""A decoded picture."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

REDUCTIONS = (8, 4, 2)
"""Divisors of both sides at which a JPEG can be decoded, faster than at full size."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, upright."""

    image: Image.Image
    """Mode RGB; smaller than the picture as shown if it was decoded at a reduction."""
    width: int
    """Width as shown, in pixels."""
    height: int
    """Height as shown, in pixels."""

    @property
    def x_scale(self) -> float:
        """Pixels of `image` for each pixel of the picture as shown, horizontally."""
        return self.image.width / self.width

    @property
    def y_scale(self) -> float:
        return self.image.height / self.height
