"""Measures how much two pictures differ, by pixels and by perceptual hashes."""

from __future__ import annotations

import math
from typing import Any

import cv2
import imagehash
import numpy as np
import pdqhash
from PIL import Image
from skimage.metrics import structural_similarity

from imagesearch_services.embedding.comparison.view import Mask, Pixels, grey_of

MEASURED_SIDE_PX = 256
"""Maximum long side of whole pictures that are compared pixel by pixel, in pixels."""
SSIM_WINDOW_PX = 7
"""Side of the windows of the structural similarity, in pixels."""


def pixel_measures(first: Pixels, second: Pixels) -> dict[str, float]:
    """Compare the pixels of two pictures without alignment; the second is resized to the first.

    Args:
        first: uint8 RGB [height, width, 3].
        second: uint8 RGB of any size.

    Returns:
        "mse", the mean squared error of the levels 0 to 255 over all channels; "psnr_db", infinite
        for equal pixels; "ssim" of the grey levels, -1 to 1 (Wang et al., "Image quality
        assessment: from error visibility to structural similarity", 2004).
    """
    height, width = first.shape[:2]
    factor = min(1.0, MEASURED_SIDE_PX / max(height, width))
    size = (max(SSIM_WINDOW_PX, round(width * factor)), max(SSIM_WINDOW_PX, round(height * factor)))
    a, b = (
        np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        for pixels in (first, second)
    )
    mse = float(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2))
    return {"mse": mse, "psnr_db": psnr_db(mse), "ssim": ssim(a, b)}


def psnr_db(mse: float) -> float:
    """Return the peak signal-to-noise ratio of 8-bit levels, dB."""
    return 10 * math.log10(255**2 / mse) if mse > 0 else math.inf


def ssim(first: Pixels, second: Pixels, mask: Mask | None = None) -> float:
    """Return the mean structural similarity of two pictures of the same size, inside the mask.

    Returns 0 for pictures narrower than a window.
    """
    a, b = grey_of(first), grey_of(second)
    if min(a.shape) < SSIM_WINDOW_PX:
        return 0.0
    compare: Any = structural_similarity  # scikit-image has no type hints
    mean, similarities = compare(a, b, win_size=SSIM_WINDOW_PX, data_range=255, full=True)
    if mask is None or not mask.any():
        return float(mean)
    return float(similarities[mask].mean())


def hash_measures(first: Pixels, second: Pixels) -> dict[str, float]:
    """Count the bits by which perceptual hashes differ.

    Returns:
        "phash_distance", 0 to 64 bits (DCT hash, ImageHash); "pdq_distance", 0 to 256 bits (PDQ,
        Facebook 2019); "pdq_distance_turned", its minimum over the eight orientations of the second
        picture.
    """
    a, b = (imagehash.phash(Image.fromarray(pixels)) for pixels in (first, second))
    (first_hash, *_), _ = pdqhash.compute_dihedral(first)
    second_hashes, _ = pdqhash.compute_dihedral(second)
    distances = [int(np.count_nonzero(first_hash != second_hash)) for second_hash in second_hashes]
    return {
        "phash_distance": float(a - b),
        "pdq_distance": float(distances[0]),
        "pdq_distance_turned": float(min(distances)),
    }
