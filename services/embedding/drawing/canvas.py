"""A raster canvas with drawing primitives: outlines, plates, rows of text, pasted pictures."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.drawing.fonts import Pixels
from imagesearch_services.embedding.drawing.text import Row

Point = tuple[float, float]

SUBPIXEL_BITS = 6
"""Fractional bits of the fixed-point coordinates that OpenCV draws with."""
HALO = "#0b0d10"
"""Color of the halo behind outlines and lines."""
MASK_SUPERSAMPLING = 4
"""Supersampling factor of masks with round corners, which antialiases them."""


class Canvas:
    """An RGB raster to draw on.

    Coordinates are continuous pixels: (0, 0) is the top-left corner of the top-left pixel, not its
    center.
    """

    def __init__(self, width: int, height: int, color: str) -> None:
        self.pixels: Pixels = np.empty((height, width, 3), np.uint8)
        self.pixels[:] = np.full((width, 3), rgb(color), np.uint8)  # whole rows copy fast

    def paste(self, picture: Pixels, left: int, top: int) -> None:
        """Copy a picture onto the canvas.

        Args:
            picture: uint8 RGB, [height, width, 3]; must lie inside the canvas.
            left: x of its left edge, in pixels.
            top: y of its top edge, in pixels.
        """
        height, width = picture.shape[:2]
        self.pixels[top : top + height, left : left + width] = picture

    def outline(
        self, points: Sequence[Point], color: str, width_px: float, *, halo_px: float
    ) -> None:
        """Draw a closed polygon outline over a wider, dark halo.

        The outline or its halo contrasts with any background.
        """
        corners = np.asarray(points, np.float64) - 0.5  # OpenCV's origin is a pixel's center
        fixed = np.rint(corners * 2**SUBPIXEL_BITS).astype(np.int32)[None]
        for stroke, stroke_px in ((HALO, width_px + 2 * halo_px), (color, width_px)):
            cv2.polylines(
                self.pixels,
                fixed,
                isClosed=True,
                color=rgb(stroke),
                thickness=max(1, round(stroke_px)),
                lineType=cv2.LINE_AA,
                shift=SUBPIXEL_BITS,
            )

    def line(
        self, start: Point, end: Point, color: str, width_px: float, *, halo_px: float
    ) -> None:
        """Draw a line segment over a wider, dark halo."""
        self.outline((start, end), color, width_px, halo_px=halo_px)

    def plate(self, box: Box, color: str, radius_px: int) -> None:
        """Fill a box with round corners."""
        left, top, right, bottom = (round(edge) for edge in box)
        mask = _rounded_mask(right - left, bottom - top, radius_px)[..., None]
        fill = np.asarray(rgb(color), np.uint16)
        # Only the rows with round corners need blending; filling the others is far faster.
        corner_rows = min(radius_px, (bottom - top) // 2)
        self._blend(mask[:corner_rows], fill, left, top)
        cv2.rectangle(
            self.pixels,
            (left, top + corner_rows),
            (right - 1, bottom - corner_rows - 1),
            rgb(color),
            cv2.FILLED,
        )
        self._blend(mask[bottom - top - corner_rows :], fill, left, bottom - corner_rows)

    def crossed_box(self, box: Box, color: str, cross: str, width_px: int) -> None:
        """Fill a box, rounded to whole pixels, and draw both of its diagonals."""
        left, top, right, bottom = (round(edge) for edge in box)
        inside = np.ascontiguousarray(self.pixels[top:bottom, left:right])
        inside[:] = rgb(color)
        height, width = inside.shape[:2]
        for y, y_end in ((0, height - 1), (height - 1, 0)):
            cv2.line(inside, (0, y), (width - 1, y_end), rgb(cross), width_px, cv2.LINE_AA)
        self.pixels[top:bottom, left:right] = inside

    def row(self, row: Row, left: int, top: int) -> None:
        """Draw a row of text with its top-left corner at (left, top)."""
        self._blend(row.pixels[..., 3:], row.pixels[..., :3], left, top + row.top_px)

    def _blend(self, alpha: Pixels, color: npt.NDArray[np.integer], left: int, top: int) -> None:
        """Composite a color over the canvas, clipped to the canvas.

        Args:
            alpha: uint8 opacity, [height, width, 1].
            color: an RGB color, [3], or a color for each pixel, [height, width, 3].
            left: x of the left edge, in pixels; may be negative.
            top: y of the top edge, in pixels; may be negative.
        """
        height, width = alpha.shape[:2]
        x, y = max(0, -left), max(0, -top)
        background = self.pixels[top + y : top + height, left + x : left + width]
        height, width = background.shape[:2]
        opacity = alpha[y : y + height, x : x + width].astype(np.uint16)
        foreground = color if color.ndim == 1 else color[y : y + height, x : x + width]
        background[:] = (background * (255 - opacity) + foreground * opacity + 127) // 255


@functools.cache
def rgb(color: str) -> tuple[int, int, int]:
    """Convert "#rrggbb" to red, green and blue, 0 to 255."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue


@functools.lru_cache(64)
def _rounded_mask(width: int, height: int, radius_px: int) -> Pixels:
    """Return the antialiased mask of a box with round corners, uint8 [height, width]."""
    factor = MASK_SUPERSAMPLING
    radius = min(radius_px, width // 2, height // 2) * factor
    mask = np.zeros((height * factor, width * factor), np.uint8)
    right, bottom = mask.shape[1] - 1 - radius, mask.shape[0] - 1 - radius
    cv2.rectangle(mask, (radius, 0), (right, mask.shape[0]), 255, cv2.FILLED)
    cv2.rectangle(mask, (0, radius), (mask.shape[1], bottom), 255, cv2.FILLED)
    for x in (radius, right):
        for y in (radius, bottom):
            cv2.circle(mask, (x, y), radius, 255, cv2.FILLED)
    small = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)
