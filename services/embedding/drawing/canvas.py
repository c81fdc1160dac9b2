"""Pixels that are drawn on: strokes, plates, rows of text and other pictures."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.drawing.text import Pixels, Row

Point = tuple[float, float]

SUBPIXEL_BITS = 6
HALO = "#0b0d10"


class Canvas:
    """An RGB picture to draw on. Coordinates are continuous pixels; (0, 0) is the corner itself."""

    def __init__(self, width: int, height: int, color: str) -> None:
        self.pixels: Pixels = np.empty((height, width, 3), np.uint8)
        self.pixels[:] = np.full((width, 3), rgb(color), np.uint8)  # whole rows are copied fast

    def paste(self, picture: Pixels, left: int, top: int) -> None:
        """Put an RGB picture at whole pixels."""
        height, width = picture.shape[:2]
        self.pixels[top : top + height, left : left + width] = picture

    def outline(
        self, points: Sequence[Point], color: str, width_px: float, *, halo_px: float
    ) -> None:
        """Draw a closed line centred on its corners, over a darker, wider one.

        One of the two stands out from whatever is beneath.
        """
        corners = np.asarray(points, np.float64) - 0.5  # OpenCV counts from centres of pixels
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
        self.outline((start, end), color, width_px, halo_px=halo_px)

    def plate(self, box: Box, color: str, radius_px: int) -> None:
        """Fill a box with round corners."""
        left, top, right, bottom = (round(edge) for edge in box)
        mask = _rounded(right - left, bottom - top, radius_px)[..., None]
        over = np.asarray(rgb(color), np.uint16)
        # All rows but those with corners are full: far faster to fill than to blend.
        corners = min(radius_px, (bottom - top) // 2)
        self._blend(mask[:corners], over, left, top)
        cv2.rectangle(
            self.pixels, (left, top + corners), (right - 1, bottom - corners - 1), rgb(color), -1
        )
        self._blend(mask[bottom - top - corners :], over, left, bottom - corners)

    def crossed(self, box: Box, color: str, cross: str, width_px: int) -> None:
        """Fill a box at whole pixels and cross it out."""
        left, top, right, bottom = (round(edge) for edge in box)
        inside = np.ascontiguousarray(self.pixels[top:bottom, left:right])
        inside[:] = rgb(color)
        height, width = inside.shape[:2]
        for y, y_end in ((0, height - 1), (height - 1, 0)):
            cv2.line(inside, (0, y), (width - 1, y_end), rgb(cross), width_px, cv2.LINE_AA)
        self.pixels[top:bottom, left:right] = inside

    def row(self, row: Row, left: int, top: int) -> None:
        """Write a row of text whose top-left corner lies there."""
        self._blend(row.pixels[..., 3:], row.pixels[..., :3], left, top + row.top_px)

    def _blend(self, alpha: Pixels, color: npt.NDArray[np.integer], left: int, top: int) -> None:
        """Lay color over what is there; what lies outside of the canvas is left out."""
        height, width = alpha.shape[:2]
        x, y = max(0, -left), max(0, -top)
        beneath = self.pixels[top + y : top + height, left + x : left + width]
        height, width = beneath.shape[:2]
        share = alpha[y : y + height, x : x + width].astype(np.uint16)
        over = color if color.ndim == 1 else color[y : y + height, x : x + width]
        beneath[:] = (beneath * (255 - share) + over * share + 127) // 255


@functools.cache
def rgb(color: str) -> tuple[int, int, int]:
    """Read "#rrggbb"."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue


@functools.lru_cache(64)
def _rounded(width: int, height: int, radius_px: int) -> Pixels:
    """Make the mask of a box with round corners."""
    factor = 4
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
