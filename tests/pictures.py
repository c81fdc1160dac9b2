"""Pictures made for tests: different from one another, and alike on every machine."""

from __future__ import annotations

import io
import zlib

import numpy as np
from PIL import Image, ImageDraw


def photo(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Draw a scene that a copy descriptor can tell from every other seed's.

    Args:
        seed: names the scene.
        size: width and height in pixels.
    """
    random = np.random.default_rng(seed)
    width, height = size
    coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    scene = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(scene)
    for _ in range(14):
        x, y = random.integers(0, width), random.integers(0, height)
        w, h = random.integers(width // 12, width // 3), random.integers(height // 12, height // 3)
        colour = tuple(int(part) for part in random.integers(0, 256, 3))
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape((int(x), int(y), int(x + w), int(y + h)), fill=colour)
    return scene


def encoded(picture: Image.Image, file_format: str = "JPEG", **options: object) -> bytes:
    """Return the picture as a file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds nearly nothing: a decompression bomb's fuse."""
    bomb = bytearray(encoded(Image.new("RGB", (16, 16)), "PNG"))
    bomb[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    return bytes(bomb)
