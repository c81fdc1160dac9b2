"""Drawings as files."""

from __future__ import annotations

import io

import cv2
from PIL import Image

from imagesearch_services.embedding.drawing.text import Pixels

OPENCV = {
    # Of what was tried on drawn photographs, the fastest at a fair size.
    "image/png": (
        ".png",
        (
            cv2.IMWRITE_PNG_COMPRESSION, 1,
            cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
            cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP,
        ),
    ),
    "image/jpeg": (".jpg", (cv2.IMWRITE_JPEG_QUALITY, 85)),
}  # fmt: skip
"""What OpenCV calls each, and how it writes it."""

WEBP = "image/webp"
WEBP_OPTIONS = {"quality": 85, "method": 0}
"""OpenCV takes four times as long for it, and can't be told not to."""

MEDIA_TYPES = (*OPENCV, WEBP)


def encode(pixels: Pixels, media_type: str) -> bytes:
    """Write an RGB picture as a file of one of MEDIA_TYPES."""
    if media_type == WEBP:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "WEBP", **WEBP_OPTIONS)
        return buffer.getvalue()
    extension, parameters = OPENCV[media_type]
    done, content = cv2.imencode(extension, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), parameters)
    if not done:
        raise RuntimeError(f"OpenCV could not write {media_type}")
    return bytes(content)
