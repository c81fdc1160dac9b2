"""Measures how far the parts of two aligned pictures deviate from a single homography.

An edit moves the whole picture by one homography, to a fraction of a pixel. If the camera or the
objects moved between two photos, near and far objects are displaced differently (parallax). This
distinguishes two photos of a shelf that agree in everything else.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from imagesearch_services.embedding.comparison.alignment import Aligned
from imagesearch_services.embedding.comparison.optical_flow import displaced, flow_of
from imagesearch_services.embedding.comparison.overlap import correlations, overlap_of
from imagesearch_services.embedding.comparison.view import Floats, Grey, Mask, View, grey_of
from imagesearch_services.embedding.features import geometric_check

SIDE_PX = 512
"""Maximum long side of the overlap, in pixels."""
MIN_SIDE_PX = 32
"""Minimum shorter side of the overlap, in pixels."""
EDGE_PX = 17
"""Side of the kernel that erodes the overlap, pixels: the side of the correlated windows."""
TEXTURED_SHARE = 0.7
"""Share of the pixels with contrast that are used: the pixels with the most texture around them,
whose flow is reliable."""
MIN_CORRELATION = 0.7
"""Minimum correlation of the window around a displaced pixel, which excludes covered and replaced
parts."""
MIN_POINTS = 200
"""Minimum pixels for a measurement."""
MAX_POINTS = 4000
"""Maximum pixels of a measurement; more are subsampled."""
TOLERANCE_PX = 1.0
"""Maximum reprojection error of an inlier of the homography, in pixels."""
PERCENTILE = 75.0
"""Percentile of the distances that is returned."""


def displacement_px(first: View, second: View, aligned: Aligned) -> float | None:
    """Measure how far matching parts of two pictures deviate from a single homography.

    Returns:
        The 75th percentile of the distances, in pixels of the overlap, which has the resolution of
        the coarser picture and a long side of at most 512 px; None if too few pixels have texture.
    """
    overlap = overlap_of(first, second, aligned.matrix, side_px=SIDE_PX)
    if overlap is None or min(overlap.mask.shape) < MIN_SIDE_PX:
        return None
    grey = replace(overlap, first=grey_of(overlap.first), second=grey_of(overlap.second))
    flow = flow_of(grey)
    similarity, has_contrast = correlations(replace(grey, first=displaced(grey.first, flow)))
    inside = cv2.erode(overlap.mask.astype(np.uint8), np.ones((EDGE_PX, EDGE_PX), np.uint8)) > 0
    matching = similarity >= MIN_CORRELATION
    rows, columns = np.nonzero(_textured(grey.second, inside & has_contrast) & matching)
    if len(rows) < MIN_POINTS:
        return None
    step = -(-len(rows) // MAX_POINTS)
    rows, columns = rows[::step], columns[::step]
    source = np.column_stack([columns, rows]).astype(np.float64)
    target = source + flow[rows, columns]
    homography, _ = cv2.findHomography(source, target, cv2.USAC_MAGSAC, TOLERANCE_PX, maxIters=200)
    if homography is None:
        return None
    projected = geometric_check.transform(np.asarray(homography, np.float64), source)
    distances = np.linalg.norm(projected - target, axis=1)
    return float(np.percentile(distances, PERCENTILE))


def _textured(grey: Grey, mask: Mask) -> Mask:
    """Return the pixels of the mask with the most texture around them."""
    if not mask.any():
        return mask
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0).astype(np.float32)
    x, y = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    texture: Floats = np.asarray(cv2.boxFilter(x * x + y * y, -1, (EDGE_PX, EDGE_PX)), np.float32)
    return mask & (texture >= np.quantile(texture[mask], 1 - TEXTURED_SHARE))
