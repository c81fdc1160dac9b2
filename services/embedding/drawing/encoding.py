"""Encodes drawings as JPEG, PNG or WebP."""

from __future__ import annotations

import io
from collections.abc import Sequence

import cv2
import fpng
import numpy as np
from PIL import Image

from imagesearch_services.embedding.drawing.fonts import Pixels

JPEG_OPTIONS = (cv2.IMWRITE_JPEG_QUALITY, 85)
PNG_OPTIONS = (
    # The fastest options with an acceptable file size, measured on drawings of photographs.
    cv2.IMWRITE_PNG_COMPRESSION, 1,
    cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP,
)  # fmt: skip
MAX_FPNG_VALUES = 3 * 1280 * 1280
"""Maximum size of a picture that fpng encodes, in values (pixels times channels): fpng holds the
GIL, for a few milliseconds at this size."""
WEBP_OPTIONS = {"quality": 85, "method": 0}
"""Options of Pillow's encoder. OpenCV's has no `method` and takes four times as long."""


def encode(pixels: Pixels, media_type: str) -> bytes:
    """Encode a picture.

    Args:
        pixels: uint8 RGB, [height, width, 3].
        media_type: one of `MEDIA_TYPES`.
    """
    return _ENCODERS[media_type](pixels)


def _encode_jpeg(pixels: Pixels) -> bytes:
    return _encode_with_opencv(".jpg", pixels, JPEG_OPTIONS)


def _encode_png(pixels: Pixels) -> bytes:
    if pixels.size <= MAX_FPNG_VALUES:
        # fpng takes a quarter of OpenCV's time for a file of the same size, but holds the GIL.
        return bytes(fpng.from_ndarray(np.ascontiguousarray(pixels)))
    return _encode_with_opencv(".png", pixels, PNG_OPTIONS)


def _encode_webp(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", **WEBP_OPTIONS)
    return buffer.getvalue()


def _encode_with_opencv(extension: str, pixels: Pixels, options: Sequence[int]) -> bytes:
    succeeded, content = cv2.imencode(extension, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    if not succeeded:
        raise RuntimeError(f"OpenCV failed to encode {extension}")
    return bytes(content)


_ENCODERS = {"image/png": _encode_png, "image/jpeg": _encode_jpeg, "image/webp": _encode_webp}

MEDIA_TYPES = tuple(_ENCODERS)
"""Media types that `encode` writes."""
