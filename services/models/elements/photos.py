"""Photos that elements are pasted into, rotated, in perspective, recolored and blurred."""

from __future__ import annotations

import math
import random
from pathlib import Path

import cv2
import numpy as np

from imagesearch_services.models.elements import drawing
from imagesearch_services.models.elements.drawing import Pixels

AREA = (0.03, 0.30)
"""Range of the share of the photo that an element covers; log-uniformly distributed."""
MAX_TRIES = 60
"""Maximum number of attempts to find a free place for an element."""


def write_pixels(path: Path, pixels: Pixels, quality: int = 92) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)


def at_side(pixels: Pixels, side_px: int) -> Pixels:
    """Resize to a long side of `side_px` pixels, keeping the aspect ratio."""
    factor = side_px / max(pixels.shape[:2])
    size = round(pixels.shape[1] * factor), round(pixels.shape[0] * factor)
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, size, interpolation=method), np.uint8)


class Photo:
    """A photo with pasted elements."""

    def __init__(self, pixels: Pixels, rng: random.Random) -> None:
        self.pixels = pixels
        self.areas: list[float] = []
        self._rng = rng
        self._taken = np.zeros(pixels.shape[:2], np.uint8)

    def paste(self, rgba: Pixels) -> list[tuple[float, float]] | None:
        """Paste an element, rotated, in perspective, recolored and blurred.

        Returns:
            Its corners in pixels, or None if no free place was found.
        """
        rng = self._rng
        height, width = self.pixels.shape[:2]
        high, wide = rgba.shape[:2]
        for attempt in range(MAX_TRIES):
            area = math.exp(rng.uniform(*map(math.log, AREA))) * (0.97**attempt)
            area = max(area, AREA[0])
            quad = self._outline(wide / high, area * height * width)
            if quad[:, 0].min() < 0 or quad[:, 1].min() < 0:
                continue
            if quad[:, 0].max() >= width or quad[:, 1].max() >= height:
                continue
            mask = np.zeros_like(self._taken)
            cv2.fillConvexPoly(mask, np.rint(quad).astype(np.int32), 1)
            if (mask & self._taken).any():
                continue
            self._taken |= mask
            self.areas.append(float(mask.mean()))
            self._blend(rgba, quad)
            return [(round(float(x), 2), round(float(y), 2)) for x, y in quad]
        if not self.areas:
            self.areas.append(0.0)
        return None

    def _outline(self, aspect: float, area_px: float) -> np.ndarray:
        rng = self._rng
        height, width = self.pixels.shape[:2]
        high = math.sqrt(area_px / aspect)
        wide = high * aspect
        turn = math.radians(rng.uniform(-180, 180) if rng.random() < 0.1 else rng.gauss(0, 22))
        corners = np.array([(-wide, -high), (wide, -high), (wide, high), (-wide, high)]) / 2
        jitter = 0.07 * min(wide, high)
        corners += np.array([[rng.uniform(-jitter, jitter) for _ in range(2)] for _ in range(4)])
        cosine, sine = math.cos(turn), math.sin(turn)
        turned = corners @ np.array([[cosine, sine], [-sine, cosine]])
        half = np.abs(turned).max(axis=0)
        middle = [
            rng.uniform(min(half[axis], side / 2), max(side - half[axis], side / 2))
            for axis, side in enumerate((width, height))
        ]
        return np.asarray(turned + np.array(middle), float)

    def _blend(self, rgba: Pixels, quad: np.ndarray) -> None:
        rng = self._rng
        height, width = self.pixels.shape[:2]
        side = math.sqrt(max(1.0, cv2.contourArea(quad.astype(np.float32))))
        factor = side / math.sqrt(rgba.shape[0] * rgba.shape[1])
        if factor < 1:
            size = max(2, round(rgba.shape[1] * factor)), max(2, round(rgba.shape[0] * factor))
            rgba = np.asarray(cv2.resize(rgba, size, interpolation=cv2.INTER_AREA), np.uint8)
        rgba = np.dstack([_recolored(rgba[:, :, :3], rng), rgba[:, :, 3]])
        high, wide = rgba.shape[:2]
        source = np.array([(0, 0), (wide, 0), (wide, high), (0, high)], np.float32)
        matrix = cv2.getPerspectiveTransform(source, quad.astype(np.float32))
        warped = cv2.warpPerspective(rgba, matrix, (width, height), flags=cv2.INTER_LINEAR)
        sigma = rng.choice([0.0, 0.0, rng.uniform(0.4, 1.6)])
        if sigma:
            warped = cv2.GaussianBlur(warped, (0, 0), sigma)
        # Transparent pixels have no color of their own: blend by the blurred alpha alone.
        self.pixels = drawing.over(np.asarray(warped, np.uint8), self.pixels)


def _recolored(pixels: Pixels, rng: random.Random) -> Pixels:
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[:, :, 0] = (hsv[:, :, 0] + rng.uniform(-12, 12)) % 180
    hsv[:, :, 1] *= 0.0 if rng.random() < 0.08 else rng.uniform(0.6, 1.35)
    hsv[:, :, 2] = hsv[:, :, 2] * rng.uniform(0.6, 1.2) + rng.uniform(-15, 25)
    clipped = np.clip(hsv, 0, (179, 255, 255)).astype(np.uint8)
    return np.asarray(cv2.cvtColor(clipped, cv2.COLOR_HSV2RGB), np.uint8)
