"""Finds the uniform colors of a picture: peaks in the color histogram of flat pixels near edges."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

BIN = np.array((6, 4, 4), np.uint8)
"""Bin widths of the histogram, in CIE Lab as OpenCV scales it to bytes."""
MAX_COLORS = 12
"""Maximum colors of a picture."""
MIN_SHARE = 0.0004
"""Minimum share of a color, of the picture's pixels."""
FLAT_RANGE = 6
"""Maximum range of the values along a line through a flat pixel, in each channel."""
EDGE_STRENGTH = 50
"""Gradient magnitude (Sobel, summed over the channels) above which a pixel is an edge."""
NEAR_EDGE_PX = 3
"""Maximum distance of a pixel from an edge to count as near it, in pixels."""
PEAK_RADIUS, SURROUND_RADIUS, SUPPRESSION_RADIUS = 1, 3, 2
"""Radii of a color, of the similar colors around it, and of non-maximum suppression, bins."""


def flat_pixels(lab: Pixels) -> Bools:
    """Find the pixels whose color is constant along a line of five pixels.

    One of four directions suffices, since a stroke is flat only along its own direction.

    Args:
        lab: uint8 CIE Lab, [height, width, 3].

    Returns:
        The mask of the pixels, [height, width].
    """
    is_flat = np.zeros(lab.shape[:2], bool)
    for line in _lines():
        value_range = cv2.subtract(cv2.dilate(lab, line), cv2.erode(lab, line))
        lightness, *chroma = cv2.split(value_range)
        is_flat |= cv2.max(lightness, cv2.max(*chroma)) <= FLAT_RANGE
    return is_flat


def _lines() -> list[Pixels]:
    """Return structuring elements: lines of five pixels in four directions, [5, 5]."""
    horizontal = np.zeros((5, 5), np.uint8)
    horizontal[2] = 1
    diagonal = np.eye(5, dtype=np.uint8)
    return [horizontal, horizontal.T.copy(), diagonal, diagonal[::-1].copy()]


def pixels_near_edges(lab: Pixels) -> Bools:
    """Return the pixels at most `NEAR_EDGE_PX` from an edge, [height, width]."""
    strength = np.zeros(lab.shape[:2], np.float32)
    for channel in cv2.split(lab):
        x_gradient, y_gradient = (
            cv2.Sobel(channel, cv2.CV_32F, *order) for order in ((1, 0), (0, 1))
        )
        strength += cv2.magnitude(x_gradient, y_gradient)
    side = 2 * NEAR_EDGE_PX + 1
    edges = (strength > EDGE_STRENGTH).astype(np.uint8)
    return np.asarray(cv2.dilate(edges, np.ones((side, side), np.uint8)), bool)


def flat_colors(lab: Pixels, chosen: Bools) -> Iterator[Doubles]:
    """Yield colors that are frequent among the chosen pixels, while similar colors are rare.

    Args:
        lab: uint8 CIE Lab, [height, width, 3].
        chosen: the pixels to count, [height, width].

    Yields:
        CIE Lab colors in the scale of `lab`, [3]; at most `MAX_COLORS`.
    """
    bins = (lab[chosen] // BIN).astype(np.int64)
    if not len(bins):
        return
    lowest_bin = bins.min(axis=0)
    shape = tuple(bins.max(axis=0) - lowest_bin + 1)
    rows = np.ravel_multi_index(tuple((bins - lowest_bin).T), shape)
    counts = np.bincount(rows, minlength=int(np.prod(shape))).reshape(shape).astype(np.float64)
    near, around = _box_sums(counts, PEAK_RADIUS), _box_sums(counts, SURROUND_RADIUS)
    is_frequent = near >= MIN_SHARE * lab.shape[0] * lab.shape[1]
    scores = np.where(is_frequent, near**2 / np.maximum(around, 1), 0)
    for _ in range(MAX_COLORS):
        peak = np.array(np.unravel_index(scores.argmax(), shape))
        if not scores[tuple(peak)] > 0:
            return
        low, window = _window(peak, PEAK_RADIUS)
        part = counts[window]
        indices = np.indices(part.shape).reshape(3, -1)
        mean = (indices * part.ravel()).sum(axis=1) / part.sum()
        yield (mean + low + lowest_bin + 0.5) * BIN - 0.5
        _, window = _window(peak, SUPPRESSION_RADIUS)
        scores[window] = 0


def _window(
    peak: npt.NDArray[np.intp], radius: int
) -> tuple[npt.NDArray[np.intp], tuple[slice, ...]]:
    """Return the lowest bin and the slices of a cube around a peak, clipped to the histogram."""
    low = np.maximum(peak - radius, 0)
    return low, tuple(slice(a, b) for a, b in zip(low, peak + radius + 1, strict=True))


def _box_sums(counts: Doubles, radius: int) -> Doubles:
    """Return the sum of the cube of bins around each bin."""
    total = counts
    for axis in range(counts.ndim):
        padding = [
            (radius + 1, radius) if other == axis else (0, 0) for other in range(counts.ndim)
        ]
        running = np.cumsum(np.pad(total, padding), axis=axis)
        width = counts.shape[axis]
        upper = np.take(running, range(2 * radius + 1, 2 * radius + 1 + width), axis=axis)
        total = upper - np.take(running, range(width), axis=axis)
    return total
