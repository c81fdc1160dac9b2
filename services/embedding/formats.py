"""The picture formats that we take: how each begins, who reads it, and how it ends too early.

Pillow's own dispatch is not used: it tries readers that we do not want, and it refuses some sizes
before telling them. A format is told by its first bytes and read by exactly one reader.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

NAMES = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"

AVIF_BRANDS = {b"avif", b"avis"}

STRIP_OFFSETS, STRIP_BYTE_COUNTS, TILE_OFFSETS, TILE_BYTE_COUNTS = 273, 279, 324, 325
"""TIFF 6.0 tags that say where the pixels lie."""

JPEG_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
"""Markers that stand alone: TEM, RST0-7, SOI."""
JPEG_END, JPEG_SCAN = 0xD9, 0xDA


@dataclass(frozen=True, slots=True)
class Format:
    """A picture format."""

    media_type: str
    begins: Callable[[bytes], bool]
    """Whether these are the first bytes of such a file."""
    open: Callable[[io.BytesIO], ImageFile.ImageFile]
    """Reads the header only, and raises all kinds of exceptions if it is broken."""
    ends_early: Callable[[bytes], bool]
    """Whether a file that can't be read lacks its end. Asked after a failure only."""


def recognise(content: bytes) -> Format | None:
    """Tell the format from the first bytes; None: not one of ours."""
    return next((each for each in FORMATS if each.begins(content)), None)


def jpeg_scan_count(content: bytes) -> int:
    """Count the scans at most; each costs a pass over all coefficients of the picture."""
    return content.count(b"\xff\xda")


def tiff_strip_count(content: bytes) -> int:
    """Count the strips or tiles of the first picture; Pillow makes an object for each.

    Source: TIFF 6.0, section 2; the BigTIFF File Format, section "The Design".
    """
    order: Literal["little", "big"] = "little" if content[:2] == b"II" else "big"
    big = b"+" in content[2:4]  # 43 in either byte order; 42 in a plain TIFF
    offset_bytes, count_bytes, entry_bytes = (8, 8, 20) if big else (4, 2, 12)

    def number(at: int, size: int) -> int:
        return int.from_bytes(content[at : at + size], order)

    first = number(8 if big else 4, offset_bytes)
    entries = range(
        first + count_bytes,
        min(first + count_bytes + number(first, count_bytes) * entry_bytes, len(content)),
        entry_bytes,
    )
    wanted = {STRIP_OFFSETS, TILE_OFFSETS}
    counts = (number(at + 4, offset_bytes) for at in entries if number(at, 2) in wanted)
    return max(counts, default=0)


def _jpeg_ends_early(content: bytes) -> bool:
    """Walk the segments to the first scan, then look for the end of the picture.

    A plain search for the end would find that of a thumbnail in the header.
    """
    position = 2
    while position + 4 <= len(content):
        if content[position] != 0xFF:  # noqa: PLR2004  # every segment begins so
            return False
        marker = content[position + 1]
        if marker == JPEG_SCAN:
            return content.find(bytes((0xFF, JPEG_END)), position) < 0
        if marker == 0xFF:  # noqa: PLR2004  # padding
            position += 1
        elif marker in JPEG_WITHOUT_LENGTH:
            position += 2
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return True


def _png_ends_early(content: bytes) -> bool:
    if len(content) >= 16 and content[12:16] != b"IHDR":  # noqa: PLR2004  # the first chunk's kind
        return False
    position = 8
    while position + 12 <= len(content):
        if content[position + 4 : position + 8] == b"IEND":
            return False
        position += 12 + int.from_bytes(content[position : position + 4], "big")
    return True


def _webp_ends_early(content: bytes) -> bool:
    return len(content) < 8 + int.from_bytes(content[4:8], "little")


def _gif_ends_early(content: bytes) -> bool:
    return not content.rstrip(b"\0").endswith(b";")


def _bmp_ends_early(content: bytes) -> bool:
    return len(content) < int.from_bytes(content[2:6], "little")


def _tiff_ends_early(content: bytes) -> bool:
    try:
        tags = TiffImagePlugin.TiffImageFile(io.BytesIO(content)).tag_v2
        ends = zip(_numbers(tags, STRIP_OFFSETS), _numbers(tags, STRIP_BYTE_COUNTS), strict=False)
        tile_ends = zip(
            _numbers(tags, TILE_OFFSETS), _numbers(tags, TILE_BYTE_COUNTS), strict=False
        )
        return any(
            offset + count > len(content) for pairs in (ends, tile_ends) for offset, count in pairs
        )
    except Exception:  # noqa: BLE001  # the header itself can't be read: is it there at all?
        order: Literal["little", "big"] = "little" if content[:2] == b"II" else "big"
        return int.from_bytes(content[4:8], order) + 2 > len(content)


def _numbers(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> Iterator[int]:
    value = tags.get(tag, ())
    yield from value if isinstance(value, tuple) else (value,)


def _avif_ends_early(content: bytes) -> bool:
    """Walk the top-level boxes of the ISO base media file."""
    position = 0
    while position + 8 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(content[position + 8 : position + 16], "big")
        if size < 8:  # noqa: PLR2004  # 0: to the end of the file; else broken
            return False
        position += size
    return position != len(content)


def _begins_as_avif(content: bytes) -> bool:
    """Look for AVIF among all brands: the major one may be that of any container."""
    if content[4:8] != b"ftyp":
        return False
    brands = content[8 : min(int.from_bytes(content[:4], "big"), 256)]
    return any(brands[at : at + 4] in AVIF_BRANDS for at in range(0, len(brands), 4) if at != 4)  # noqa: PLR2004


def _jpeg(file: io.BytesIO) -> ImageFile.ImageFile:
    # Not Pillow's factory: of a file with several pictures (MPO), the first one counts.
    return JpegImagePlugin.JpegImageFile(file)


FORMATS = (
    Format("image/jpeg", lambda content: content[:3] == b"\xff\xd8\xff", _jpeg, _jpeg_ends_early),
    Format(
        "image/png",
        lambda content: content[:8] == b"\x89PNG\r\n\x1a\n",
        PngImagePlugin.PngImageFile,
        _png_ends_early,
    ),
    Format(
        "image/webp",
        lambda content: content[:4] == b"RIFF" and content[8:12] == b"WEBP",
        WebPImagePlugin.WebPImageFile,
        _webp_ends_early,
    ),
    Format(
        "image/gif",
        lambda content: content[:6] in {b"GIF87a", b"GIF89a"},
        GifImagePlugin.GifImageFile,
        _gif_ends_early,
    ),
    Format(
        "image/bmp",
        lambda content: content[:2] == b"BM",
        BmpImagePlugin.BmpImageFile,
        _bmp_ends_early,
    ),
    Format(
        "image/tiff",
        lambda content: content.startswith(tuple(TiffImagePlugin.PREFIXES)),
        TiffImagePlugin.TiffImageFile,
        _tiff_ends_early,
    ),
    Format("image/avif", _begins_as_avif, AvifImagePlugin.AvifImageFile, _avif_ends_early),
)
