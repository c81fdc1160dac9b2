"""Converts decoded pictures of any mode to upright RGB, with transparency over white.

The conversion works on bands of rows and writes into an array of the caller, so that it takes
little memory beyond the decoded picture and the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

WHITE = (255, 255, 255)
"""Color behind transparent pixels."""

BAND_PIXELS = 1_000_000
"""Pixels of a band."""

ORIENTED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.transpose(1, 0, 2),
    6: np.rot90,
    7: lambda shown: shown[::-1, ::-1].transpose(1, 0, 2),
    8: lambda shown: np.rot90(shown, -1),
}
"""Views of a picture as shown in the orientation of the file, by EXIF orientation (EXIF 2.32, tag
274)."""

SIDEWAYS = {5, 6, 7, 8}
"""EXIF orientations that exchange width and height."""


def write_rgb(image: Image.Image, target: Pixels, orientation: int) -> None:
    """Write a loaded picture upright as RGB, with transparency over white.

    Args:
        image: loaded picture of any mode.
        target: uint8 [height, width, 3] of the picture as shown.
        orientation: EXIF orientation of the picture, 1 to 8.
    """
    stored = ORIENTED[orientation](target)
    band = _grey_bands(image) if _is_deep_grey(image) else _color_bands(image)
    rows = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(image.height, top + rows)
        stored[top:bottom] = band(top, bottom)


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode in {"I", "F"} or image.mode.startswith("I;16")


def _color_bands(image: Image.Image) -> Callable[[int, int], Pixels]:
    def band(top: int, bottom: int) -> Pixels:
        if (top, bottom) == (0, image.height):
            return np.asarray(_flat(image))
        return np.asarray(_flat(image.crop((0, top, image.width, bottom))))

    return band


def _flat(image: Image.Image) -> Image.Image:
    """Convert a picture of at most eight bits a channel to RGB."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return rgba.convert("RGB")
    flat = Image.new("RGB", rgba.size, WHITE)
    flat.paste(rgba, mask=alpha)
    return flat


def _grey_bands(image: Image.Image) -> Callable[[int, int], Pixels]:
    """Convert grey levels of more than eight bits, which Pillow would clip.

    Sixteen-bit levels keep their scale. 32-bit integers and floats have no defined range: the
    ranges 0 to 1 (floats), 0 to 255 and 0 to 65,535 are recognized by the largest value; any other
    range is mapped from its smallest and largest value to 0 and 255.
    """
    levels: npt.NDArray[Any] = np.asarray(image)
    transparent = image.info.get("transparency")
    to_bytes = _upper_byte if image.mode.startswith("I;16") else _scale(image.mode, levels)

    def band(top: int, bottom: int) -> Pixels:
        part = levels[top:bottom]
        grey = to_bytes(part)
        if isinstance(transparent, int):
            grey[part == transparent] = 255
        return np.broadcast_to(grey[..., None], (*grey.shape, 3))

    return band


def _upper_byte(levels: npt.NDArray[Any]) -> Pixels:
    return (levels >> 8).astype(np.uint8)


def _scale(mode: str, levels: npt.NDArray[Any]) -> Callable[[npt.NDArray[Any]], Pixels]:
    rows = max(1, BAND_PIXELS // max(1, levels.shape[1]))
    low, high = float("inf"), float("-inf")
    for top in range(0, len(levels), rows):
        finite = _finite(levels[top : top + rows])
        low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    ceilings = (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
    ceiling = next((limit for limit in ceilings if low >= 0.0 and high <= limit), None)
    floor, top_level = (low, high) if ceiling is None else (0.0, ceiling)

    def to_bytes(part: npt.NDArray[Any]) -> Pixels:
        factor = 255.0 / ((top_level - floor) or 1.0)
        return np.asarray(np.rint((_finite(part) - floor) * factor), np.uint8)

    return to_bytes


def _finite(levels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.nan_to_num(levels.astype(np.float32), posinf=0.0, neginf=0.0)
