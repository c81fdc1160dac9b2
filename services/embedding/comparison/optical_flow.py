"""Computes dense optical flow between the two pictures of an overlap."""

from __future__ import annotations

import cv2
import numpy as np

from imagesearch_services.embedding.comparison.overlap import Overlap
from imagesearch_services.embedding.comparison.view import Floats, Pixels, grey_of


def flow_of(overlap: Overlap) -> Floats:
    """Return the displacement (x, y) of each pixel from the second picture to the first.

    Dense inverse search (Kroeger et al., "Fast optical flow using dense inverse search", ECCV
    2016), median filtered.

    Returns:
        Pixels, float32 [height, width, 2].
    """
    first, second = (
        cv2.GaussianBlur(grey_of(pixels), (0, 0), 1.0) for pixels in (overlap.first, overlap.second)
    )
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    flow = search.calc(second, first, np.zeros((*overlap.mask.shape, 2), np.float32))
    return np.asarray(cv2.medianBlur(flow, 5), np.float32)


def displaced(pixels: Pixels, flow: Floats) -> Pixels:
    """Warp a picture by a flow: each pixel is read at its displaced position."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    result = cv2.remap(
        pixels,
        x + flow[..., 0],
        y + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(result, np.uint8)
