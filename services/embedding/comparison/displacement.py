"""How far what two aligned pictures show lies from where one homography would have it.

An edit moves the whole picture by one homography, to a fraction of a pixel. A camera that was held
elsewhere, or what was put elsewhere before it, moves near things and far ones differently: parallax
that remains where everything else about two photos of one shelf agrees.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from imagesearch_services.embedding import geometric_check
from imagesearch_services.embedding.comparison.alignment import (
    Aligned,
    Floats,
    Grey,
    Mask,
    View,
    correlations,
    grey_of,
    lay_over,
    shifted,
    shifts,
)

SIDE_PX = 512
"""Long side at which pictures are laid over each other, if they have it."""
MIN_SIDE_PX = 32
EDGE_PX = 17
"""As wide as the windows whose correlations are counted: what is nearer to the end of what both
show is left out."""
TEXTURED_SHARE = 0.7
"""Of the windows with contrast, those that have most: elsewhere nothing tells what moved."""
MIN_CORRELATION = 0.7
"""Of windows that show the same, once shifted; what was pasted on or swapped has no place there."""
MIN_POINTS = 200
MAX_POINTS = 4000
TOLERANCE_PX = 1.0
PERCENTILE = 75.0


def displacement_px(first: View, second: View, aligned: Aligned) -> float | None:
    """Tell how far from one homography parts lie that look the same.

    Returns:
        What three quarters of them are within, in pixels of the coarser picture, or of what both
        show at 512 px if that is less; None where too little can be told apart.
    """
    overlap = lay_over(first, second, aligned.matrix, side_px=SIDE_PX)
    if overlap is None or min(overlap.mask.shape) < MIN_SIDE_PX:
        return None
    moved = replace(overlap, first=grey_of(overlap.first), second=grey_of(overlap.second))
    flow = shifts(moved)
    found, has_contrast = correlations(replace(moved, first=shifted(moved.first, flow)))
    inside = cv2.erode(overlap.mask.astype(np.uint8), np.ones((EDGE_PX, EDGE_PX), np.uint8)) > 0
    told = _textured(moved.second, inside & has_contrast) & (found >= MIN_CORRELATION)
    rows, columns = np.nonzero(told)
    if len(rows) < MIN_POINTS:
        return None
    step = -(-len(rows) // MAX_POINTS)
    rows, columns = rows[::step], columns[::step]
    source = np.column_stack([columns, rows]).astype(np.float64)
    target = source + flow[rows, columns]
    homography, _ = cv2.findHomography(source, target, cv2.USAC_MAGSAC, TOLERANCE_PX, maxIters=200)
    if homography is None:
        return None
    places = geometric_check.transform(np.asarray(homography, np.float64), source)
    distances = np.linalg.norm(places - target, axis=1)
    return float(np.percentile(distances, PERCENTILE))


def _textured(grey: Grey, where: Mask) -> Mask:
    """Give the pixels with the most texture around them, of those asked for."""
    if not where.any():
        return where
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0).astype(np.float32)
    x, y = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    texture: Floats = np.asarray(cv2.boxFilter(x * x + y * y, -1, (EDGE_PX, EDGE_PX)), np.float32)
    return where & (texture >= np.quantile(texture[where], 1 - TEXTURED_SHARE))
