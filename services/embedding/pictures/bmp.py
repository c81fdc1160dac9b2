"""Reads BMP files, and decodes run-length encoding faster than Pillow, which appends pixels.

Source: Microsoft, "Bitmap Compression" (Windows GDI).
"""

from __future__ import annotations

import io
from typing import Any

from PIL import BmpImagePlugin, ImageFile

END_OF_LINE, END_OF_BITMAP, DELTA = 0, 1, 2
"""Escapes of the encoding; larger values are the length of a run without encoding."""
CODEC = "bmp_rle"


class BmpFile(BmpImagePlugin.BmpImageFile):
    """A BMP file."""

    def load(self) -> Any:
        if self.tile and self.tile[0].codec_name == CODEC:
            (tile,) = self.tile
            arguments: Any = tile.args
            _, is_four_bit, direction = arguments
            file: Any = self.fp
            file.seek(tile.offset)
            pixels = decode_runs(file.read(), *self.size, is_four_bit=bool(is_four_bit))
            self.fp = io.BytesIO(pixels)
            raw_mode = "L" if self.mode in {"1", "L"} else "P"
            self.tile = [ImageFile._Tile("raw", tile.extents, 0, (raw_mode, 0, direction))]  # noqa: SLF001
        return super().load()


def decode_runs(data: bytes, width: int, height: int, *, is_four_bit: bool) -> bytes:
    """Return the indices of all pixels, row by row as they are stored.

    Skipped pixels are 0.

    Args:
        data: run-length encoded pixels.
        width: width of the picture, in pixels.
        height: height of the picture, in pixels.
        is_four_bit: whether a byte holds two pixels.

    Raises:
        ValueError: the data ends before the picture.
    """
    total = width * height
    pixels = bytearray(total)
    at = position = column = 0
    while at < total and position + 2 <= len(data):
        count, value = data[position], data[position + 1]
        position += 2
        if count:
            count = max(0, min(count, width - column))
            pixels[at : at + count] = _run(value, count) if is_four_bit else bytes((value,)) * count
            at += count
            column += count
        elif value == END_OF_LINE:
            at += -at % width
            column = 0
        elif value == END_OF_BITMAP:
            break
        elif value == DELTA:
            if position + 2 > len(data):
                break
            at = min(total, at + data[position] + data[position + 1] * width)
            position += 2
            column = at % width
        else:
            count = min(value, total - at)
            size = (count + 1) // 2 if is_four_bit else count
            part = data[position : position + size]
            literal = _nibbles(part)[:count] if is_four_bit else part
            pixels[at : at + len(literal)] = literal
            at += len(literal)
            if len(part) < size:
                break
            column += value
            position += size + size % 2
    if at < total:
        raise ValueError("not enough image data")
    return bytes(pixels[:total])


def _run(value: int, count: int) -> bytes:
    return (bytes((value >> 4, value & 0x0F)) * ((count + 1) // 2))[:count]


def _nibbles(part: bytes) -> bytes:
    return bytes(nibble for byte in part for nibble in (byte >> 4, byte & 0x0F))
