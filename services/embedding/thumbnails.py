"""Small pictures for people to look at, made from what was decoded for the models."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

MIN_SIDE_PX = 16
MAX_SIDE_PX = 1024
"""Long sides that may be asked for."""

QUALITY = 80
"""Of the JPEG; about 15 kB for a street photograph at 320 pixels, 7 kB for a package."""


def thumbnail(image: Image.Image, max_side_px: int) -> bytes:
    """Make a JPEG of a whole picture; nothing of the file that it came in but its pixels.

    Args:
        image: RGB, upright, decoded at any reduction; it is never enlarged.
        max_side_px: of the long side.
    """
    scale = min(1.0, max_side_px / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    # Averages what it shrinks, faster than Pillow does, and knows no metadata to carry along.
    pixels = cv2.resize(np.asarray(image), (width, height), interpolation=cv2.INTER_AREA)
    # Huffman tables of its own would make it 3 % smaller and take half as long again.
    _, file = cv2.imencode(
        ".jpg",
        cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, QUALITY],
    )
    return file.tobytes()
