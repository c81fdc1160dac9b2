"""Estimates the soft masks of segments of uniform color."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

MASK_SIDE_PX = 128
"""Long side of a segment's mask, in pixels."""
MIN_CORE_PIXELS = 12
"""Number of pixels that an eroded mask must exceed for the segment's color to be estimated in it.
"""
MIN_CONTRAST = 60
"""Lower bound of the squared RGB distance between segment and background, about the noise level."""
BACKGROUND_SHRINK = 4
"""Factor by which a crop is reduced before its background is blurred."""
BACKGROUND_SIGMA_PX = MASK_SIDE_PX / 10
"""Standard deviation of the blur of the background, in pixels of the mask."""

MAX_BORDER_DISTANCE = 24
"""Distance from the background, maximum over the channels, below which a pixel of the border has
its color."""
MIN_BORDER_SHARE = 0.96
"""Minimum share of the border with the background's color in a picture of two colors."""
MIN_INK_DISTANCE = 35
"""Distance from the background, maximum over the channels, above which a pixel is ink; also the
maximum Euclidean residual of a pixel that mixes the two colors."""
MIN_INK_SHARE = 0.004
"""Minimum share of ink in a picture of two colors."""
INK_PERCENTILE = 60
"""Percentile of the ink's distances from the background above which pixels define its color."""
MIN_TWO_COLOR_SHARE = 0.97
"""Minimum share of pixels that mix the two colors."""
INK_THRESHOLD = 0.5
"""Share of ink above which a pixel belongs to a connected component of the ink."""
MAX_COMPONENTS = 32
"""Maximum connected components of a shape; a picture with more is a pattern without an outline."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a picture with a uniform color."""

    mask: Floats
    """Share of the color in each pixel, 0 to 1, [height, width]."""
    origin: tuple[float, float]
    """Position (x, y) of the mask in the picture, in pixels."""
    scale: float
    """Pixels of the mask per pixel of the picture."""
    quality: float
    """Share of flat pixels times share of sharp edges in the outline, 0 to 1."""


def resized(pixels: Pixels, factor: float) -> Pixels:
    """Scale a picture or mask, to at least one pixel."""
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=interpolation), np.uint8)


def soft_mask(crop: Pixels, mask: Pixels) -> Floats:
    """Estimate the share of a segment's color in each pixel of a crop.

    Each pixel is projected onto the line from the local background's color to the segment's color.

    Args:
        crop: uint8 RGB, [height, width, 3].
        mask: 1 in the segment, 0 elsewhere, uint8 [height, width]; not empty.

    Returns:
        Shares, 0 to 1, [height, width]; 0 farther than three pixels from the segment.
    """
    colors = crop.astype(np.float32)
    core = cv2.erode(mask, np.ones((3, 3), np.uint8))
    ink = np.median(colors[(core if core.sum() > MIN_CORE_PIXELS else mask) > 0], axis=0)
    outside = (cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0).astype(np.float32)
    background = _local_background(colors, outside)
    contrast = ink.astype(np.float32) - background
    power = np.maximum(np.einsum("yxc,yxc->yx", contrast, contrast), MIN_CONTRAST)
    shares = np.einsum("yxc,yxc->yx", colors - background, contrast) / power
    near = cv2.dilate(mask, np.ones((7, 7), np.uint8))
    return np.asarray(np.clip(shares, 0, 1) * near, np.float32)


def _local_background(colors: Floats, outside: Floats) -> Floats:
    """Return the mean color of the outside around each pixel, [height, width, 3].

    The crop is reduced first: a blur this wide leaves no detail.
    """
    weighted = np.dstack([colors * outside[..., None], outside])
    height, width = outside.shape
    size = max(1, width // BACKGROUND_SHRINK), max(1, height // BACKGROUND_SHRINK)
    reduced = cv2.resize(weighted, size, interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(reduced, (0, 0), BACKGROUND_SIGMA_PX / BACKGROUND_SHRINK)
    blurred = cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(blurred[..., :3] / np.maximum(blurred[..., 3:], 1e-3), np.float32)


def two_color_segment(rgb: Pixels) -> Segment | None:
    """Return the foreground of a picture of two colors, such as a logo on a plain background.

    Args:
        rgb: uint8, [height, width, 3].

    Returns:
        A segment of the whole picture; None if the picture has more colors, a border of several
        colors, or the foreground has more than `MAX_COMPONENTS` connected components.
    """
    scale = MASK_SIDE_PX / max(rgb.shape[:2])
    colors = resized(rgb, scale).astype(np.float32)
    border = np.concatenate([colors[0], colors[-1], colors[:, 0], colors[:, -1]])
    background = np.median(border, axis=0)
    has_background = np.abs(border - background).max(axis=1) < MAX_BORDER_DISTANCE
    if has_background.mean() < MIN_BORDER_SHARE:
        return None
    distances = np.abs(colors - background).max(axis=2)
    is_ink = distances > MIN_INK_DISTANCE
    if is_ink.mean() < MIN_INK_SHARE:
        return None
    pure = distances >= np.percentile(distances[is_ink], INK_PERCENTILE)
    contrast = np.median(colors[pure], axis=0) - background
    shares = np.clip((colors - background) @ contrast / (contrast @ contrast), 0, 1)
    residuals = np.linalg.norm(colors - (background + shares[..., None] * contrast), axis=2)
    if (residuals > MIN_INK_DISTANCE).mean() > 1 - MIN_TWO_COLOR_SHARE:
        return None
    labels, _ = cv2.connectedComponents((shares > INK_THRESHOLD).astype(np.uint8), connectivity=8)
    if labels - 1 > MAX_COMPONENTS:
        return None
    return Segment(np.asarray(shares, np.float32), (0.0, 0.0), scale, 1.0)
