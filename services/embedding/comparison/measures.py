"""How far two pictures are apart, pixel by pixel and by their perceptual hashes."""

from __future__ import annotations

import math
from typing import Any

import cv2
import imagehash
import numpy as np
import numpy.typing as npt
import pdqhash
from PIL import Image
from skimage.metrics import structural_similarity

from imagesearch_services.embedding.comparison.alignment import grey_of

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

MEASURED_SIDE_PX = 256
"""Long side at which whole pictures are compared pixel by pixel."""
SSIM_WINDOW_PX = 7


def pixel_measures(first: Pixels, second: Pixels) -> dict[str, float]:
    """Compare two pictures as they are, whatever moved, at the first one's shape.

    Args:
        first: uint8 RGB [height, width, 3].
        second: of any other size.

    Returns:
        "mse" of the levels 0 to 255 over all channels; "psnr_db", infinite for the same pixels;
        "ssim" of the grey levels, -1 to 1 (Wang et al., "Image quality assessment: from error
        visibility to structural similarity", 2004).
    """
    height, width = first.shape[:2]
    factor = min(1.0, MEASURED_SIDE_PX / max(height, width))
    size = (max(SSIM_WINDOW_PX, round(width * factor)), max(SSIM_WINDOW_PX, round(height * factor)))
    a, b = (
        np.asarray(cv2.resize(each, size, interpolation=cv2.INTER_AREA), np.uint8)
        for each in (first, second)
    )
    mse = float(np.mean((a.astype(np.float32) - b.astype(np.float32)) ** 2))
    return {"mse": mse, "psnr_db": psnr_db(mse), "ssim": ssim(a, b)}


def psnr_db(mse: float) -> float:
    """Give the peak signal-to-noise ratio of 8-bit levels."""
    return 10 * math.log10(255**2 / mse) if mse > 0 else math.inf


def ssim(first: Pixels, second: Pixels, mask: Mask | None = None) -> float:
    """Give the structural similarity of two pictures of one size, where the mask lets it."""
    a, b = grey_of(first), grey_of(second)
    if min(a.shape) < SSIM_WINDOW_PX:
        return 0.0
    found: Any = structural_similarity  # untyped
    mean, similarities = found(a, b, win_size=SSIM_WINDOW_PX, data_range=255, full=True)
    if mask is None or not mask.any():
        return float(mean)
    return float(similarities[mask].mean())


def hash_measures(first: Pixels, second: Pixels) -> dict[str, float]:
    """Count the bits by which perceptual hashes differ.

    Returns:
        "phash_distance" of 64 (DCT hash, ImageHash); "pdq_distance" of 256 (PDQ, Facebook 2019);
        "pdq_distance_turned", the least over the eight orientations of the second picture.
    """
    a, b = (imagehash.phash(Image.fromarray(each)) for each in (first, second))
    (of_first, *_), _ = pdqhash.compute_dihedral(first)
    turned, _ = pdqhash.compute_dihedral(second)
    distances = [int(np.count_nonzero(of_first != each)) for each in turned]
    return {
        "phash_distance": float(a - b),
        "pdq_distance": float(distances[0]),
        "pdq_distance_turned": float(min(distances)),
    }
