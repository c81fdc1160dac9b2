"""Warps two aligned pictures to the pixels of their overlap and correlates them there."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from imagesearch_services.embedding.comparison.view import Floats, Mask, Pixels, View, grey_of
from imagesearch_services.embedding.features import geometric_check
from imagesearch_services.embedding.features.geometric_check import Matrix, Size

MIN_SIDE_PX = 24
"""Shorter side below which an overlap is not reduced, in pixels."""
SMOOTHING_PX = 1.5
"""Standard deviation of the blur before correlation, in pixels; it suppresses the effects of
filters and compression."""
WINDOW_PX = 17
"""Side of the windows whose correlations are measured, in pixels."""
MIN_CONTRAST = 4.0
"""Minimum standard deviation of a window whose correlation is significant, grey levels."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """The part that both pictures show, warped to the same pixels."""

    first: Pixels
    """The first picture."""
    second: Pixels
    """The second picture."""
    mask: Mask
    """Pixels inside both pictures, [height, width]."""
    to_first: Matrix
    """Homography from the first picture's pixels to those of the overlap."""
    to_second: Matrix
    """Homography from the second picture's pixels to those of the overlap."""


def overlap_of(first: View, second: View, matrix: Matrix, *, side_px: int) -> Overlap | None:
    """Warp two pictures to their overlap, at the resolution of the coarser picture.

    Args:
        first: picture.
        second: picture.
        matrix: homography from the first picture's pixels to the second's.
        side_px: maximum long side of the overlap, in pixels.

    Returns:
        The overlap; None if it is narrower than two pixels.
    """
    outline = geometric_check.transform(matrix, geometric_check.corners(first.size))
    left, top = np.maximum(np.floor(outline.min(axis=0)), 0)
    right, bottom = np.minimum(np.ceil(outline.max(axis=0)), second.size)
    width, height = right - left, bottom - top
    if min(width, height) < 2:  # noqa: PLR2004
        return None
    growth = np.sqrt(abs(np.linalg.det(geometric_check.local_affine(matrix, first.size))))
    factor = min(1.0, 1.0 / growth, side_px / max(width, height))
    factor = max(factor, min(1.0, MIN_SIDE_PX / min(width, height)))
    size = (max(2, round(width * factor)), max(2, round(height * factor)))
    to_overlap = np.diag([size[0] / width, size[1] / height, 1.0]) @ np.array(
        [[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]]
    )
    warped_first, first_mask = warped(first.pixels, to_overlap @ matrix, size)
    warped_second, second_mask = warped(second.pixels, to_overlap, size)
    return Overlap(
        warped_first, warped_second, first_mask & second_mask, to_overlap @ matrix, to_overlap
    )


def warped(pixels: Pixels, matrix: Matrix, size: Size) -> tuple[Pixels, Mask]:
    """Warp a picture by a homography; a reduction averages pixels.

    Args:
        pixels: picture.
        matrix: homography from its pixels to those of the result.
        size: width and height of the result.

    Returns:
        The warped picture, and the mask of its pixels inside the original.
    """
    height, width = pixels.shape[:2]
    growth = np.sqrt(abs(np.linalg.det(geometric_check.local_affine(matrix, (width, height)))))
    if growth < 1:
        reduced = (max(2, round(width * growth)), max(2, round(height * growth)))
        pixels = np.asarray(cv2.resize(pixels, reduced, interpolation=cv2.INTER_AREA), np.uint8)
        matrix = matrix @ np.diag([width / reduced[0], height / reduced[1], 1.0])
        width, height = reduced
    # Our coordinates count from pixel edges, OpenCV's from pixel centers.
    half = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    centered = np.linalg.inv(half) @ matrix @ half
    warped_pixels = cv2.warpPerspective(
        pixels, centered, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    inside = cv2.warpPerspective(
        np.full((height, width), 255, np.uint8), centered, size, flags=cv2.INTER_NEAREST
    )
    return np.asarray(warped_pixels, np.uint8), inside > 0


def agreement(overlap: Overlap) -> tuple[float, float]:
    """Measure how well the pictures agree in their overlap.

    Returns:
        The mean correlation of the windows with contrast, 0 to 1, and the share of the overlap
        that has contrast.
    """
    similarity, has_contrast = correlations(overlap)
    values = np.clip(similarity[has_contrast], 0.0, 1.0)
    mean = float(values.mean()) if values.size else 0.0
    return mean, float(has_contrast.sum() / max(1, overlap.mask.sum()))


def correlations(overlap: Overlap) -> tuple[Floats, Mask]:
    """Correlate the grey levels in the window around each pixel.

    Returns:
        Correlations, -1 to 1, and the mask of significant correlations, both [height, width].
    """
    first, second = (
        cv2.GaussianBlur(grey_of(pixels).astype(np.float32), (0, 0), SMOOTHING_PX)
        for pixels in (overlap.first, overlap.second)
    )
    mask = overlap.mask.astype(np.float32)
    weight = np.maximum(_windowed(mask), 1e-6)
    mean_first, mean_second = _windowed(first * mask) / weight, _windowed(second * mask) / weight
    variance_first = _windowed(first * first * mask) / weight - mean_first**2
    variance_second = _windowed(second * second * mask) / weight - mean_second**2
    covariance = _windowed(first * second * mask) / weight - mean_first * mean_second
    larger = np.maximum(variance_first, variance_second)
    length = np.sqrt(np.maximum(variance_first, 1e-3) * np.maximum(variance_second, 1e-3))
    similarity = np.asarray(covariance / length, np.float32)
    return similarity, overlap.mask & (larger >= MIN_CONTRAST**2)


def _windowed(values: Floats) -> Floats:
    """Return the mean over the window around each pixel."""
    return np.asarray(
        cv2.boxFilter(values, cv2.CV_32F, (WINDOW_PX, WINDOW_PX), borderType=cv2.BORDER_REFLECT),
        np.float32,
    )
