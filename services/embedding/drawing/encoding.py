"""Drawings as files."""

from __future__ import annotations

import io
from collections.abc import Sequence

import cv2
import fpng
import numpy as np
from PIL import Image

from imagesearch_services.embedding.drawing.text import Pixels

JPEG_OPTIONS = (cv2.IMWRITE_JPEG_QUALITY, 85)
PNG_OPTIONS = (
    # Of what was tried on drawn photographs, the fastest at a fair size.
    cv2.IMWRITE_PNG_COMPRESSION, 1,
    cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP,
)  # fmt: skip
LARGEST_HELD = 3 * 1280 * 1280
"""Values of a picture that takes some milliseconds, as any thread may hold the interpreter."""
WEBP_OPTIONS = {"quality": 85, "method": 0}
"""OpenCV takes four times as long for it, and can't be told not to."""


def encode(pixels: Pixels, media_type: str) -> bytes:
    """Write an RGB picture as a file of one of MEDIA_TYPES."""
    return _WRITERS[media_type](pixels)


def _jpeg(pixels: Pixels) -> bytes:
    return _by_opencv(".jpg", pixels, JPEG_OPTIONS)


def _png(pixels: Pixels) -> bytes:
    if pixels.size <= LARGEST_HELD:
        # A quarter of OpenCV's time for a file as large; but no other thread runs meanwhile.
        return bytes(fpng.from_ndarray(np.ascontiguousarray(pixels)))
    return _by_opencv(".png", pixels, PNG_OPTIONS)


def _webp(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", **WEBP_OPTIONS)
    return buffer.getvalue()


def _by_opencv(extension: str, pixels: Pixels, options: Sequence[int]) -> bytes:
    done, content = cv2.imencode(extension, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise RuntimeError(f"OpenCV could not write {extension}")
    return bytes(content)


_WRITERS = {"image/png": _png, "image/jpeg": _jpeg, "image/webp": _webp}

MEDIA_TYPES = tuple(_WRITERS)
