"""Pictures for tests, the same on every machine."""

from __future__ import annotations

import functools
import io
import zlib
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "rocket.jpg",
    "coffee.png",
    "motorcycle_left.png",
    "camera.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "page.png",
    "retina.jpg",
    "brick.png",
    "clock_motion.png",
    "grass.png",
    "gravel.png",
)
"""Real photographs, all different, from the wheel of scikit-image."""

SMALLEST_CROP = 0.6
"""Minimum sides of a crop, as a share of the sides of its photograph. A copy descriptor finds such
crops to be copies of each other."""


@functools.cache
def photograph(name: str) -> Image.Image:
    with Image.open(Path(skimage.__file__).parent / "data" / name) as picture:
        return picture.convert("RGB")


def photo(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Return a real picture that is the same for the same seed.

    Seeds below 16 are different photographs; larger seeds are crops of them.

    Args:
        seed: number of the picture.
        size: width and height in pixels.
    """
    whole = photograph(PHOTOGRAPHS[seed % len(PHOTOGRAPHS)])
    if seed < len(PHOTOGRAPHS):
        return whole.resize(size, Image.Resampling.BICUBIC)
    random = np.random.default_rng(seed)
    share = random.uniform(SMALLEST_CROP, 1, 2)
    width, height = int(whole.width * share[0]), int(whole.height * share[1])
    x = int(random.integers(0, whole.width - width + 1))
    y = int(random.integers(0, whole.height - height + 1))
    return whole.resize(size, Image.Resampling.BICUBIC, (x, y, x + width, y + height))


def encoded(picture: Image.Image, file_format: str = "JPEG", **options: object) -> bytes:
    """Return the picture as a file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a small PNG file whose header claims a size: a decompression bomb."""
    bomb = bytearray(encoded(Image.new("RGB", (16, 16)), "PNG"))
    bomb[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    return bytes(bomb)
