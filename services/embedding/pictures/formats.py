"""Defines the supported picture formats: signature, reader, and check for truncation.

Pillow's own dispatch is not used, since it tries unsupported readers and refuses some pictures
without reporting their size. A format is recognized by its first bytes and has exactly one reader.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from PIL import (
    AvifImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from imagesearch_services.embedding.pictures import bmp

NAMES = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
"""Names of the supported formats, for error messages."""

AVIF_BRANDS = {b"avif", b"avis"}
"""Brands of AVIF in the `ftyp` box of a file."""

STRIP_OFFSETS, STRIP_BYTE_COUNTS, TILE_OFFSETS, TILE_BYTE_COUNTS = 273, 279, 324, 325
"""TIFF 6.0 tags with the positions and sizes of the pixel data."""

JPEG_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
"""JPEG markers without a length field: TEM, RST0-7, SOI."""
JPEG_END, JPEG_SCAN = 0xD9, 0xDA
"""JPEG markers for the end of the image (EOI) and the start of a scan (SOS)."""


@dataclass(frozen=True, slots=True)
class Format:
    """A picture format."""

    media_type: str
    has_signature: Callable[[bytes], bool]
    """Returns whether a file begins with the signature of the format."""
    open: Callable[[io.BytesIO], ImageFile.ImageFile]
    """Reads only the header; raises exceptions of any type if it is damaged."""
    is_truncated: Callable[[bytes], bool]
    """Returns whether a file that could not be read is truncated."""


def recognize(content: bytes) -> Format | None:
    """Recognize the format of a file by its first bytes; None if it is not supported."""
    return next((candidate for candidate in FORMATS if candidate.has_signature(content)), None)


def jpeg_scan_count(content: bytes) -> int:
    """Return an upper bound of a JPEG's scans; each scan costs a pass over all coefficients."""
    return content.count(b"\xff\xda")


def tiff_strip_count(content: bytes) -> int:
    """Return the number of strips or tiles of a TIFF's first picture.

    Pillow creates an object for each of them.

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
    tags = {STRIP_OFFSETS, TILE_OFFSETS}
    counts = (number(at + 4, offset_bytes) for at in entries if number(at, 2) in tags)
    return max(counts, default=0)


def _is_jpeg_truncated(content: bytes) -> bool:
    """Return whether a JPEG has no end marker after the start of its first scan.

    The segments before the scan are skipped: a thumbnail in the header has an end marker, too.
    """
    position = 2
    while position + 4 <= len(content):
        if content[position] != 0xFF:  # noqa: PLR2004  # first byte of every marker
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


def _is_png_truncated(content: bytes) -> bool:
    if len(content) >= 16 and content[12:16] != b"IHDR":  # noqa: PLR2004  # type of the first chunk
        return False
    position = 8
    while position + 12 <= len(content):
        if content[position + 4 : position + 8] == b"IEND":
            return False
        position += 12 + int.from_bytes(content[position : position + 4], "big")
    return True


def _is_webp_truncated(content: bytes) -> bool:
    return len(content) < 8 + int.from_bytes(content[4:8], "little")


def _is_gif_truncated(content: bytes) -> bool:
    return not content.rstrip(b"\0").endswith(b";")


def _is_bmp_truncated(content: bytes) -> bool:
    return len(content) < int.from_bytes(content[2:6], "little")


def _is_tiff_truncated(content: bytes) -> bool:
    try:
        tags = TiffImagePlugin.TiffImageFile(io.BytesIO(content)).tag_v2
        strips = zip(_numbers(tags, STRIP_OFFSETS), _numbers(tags, STRIP_BYTE_COUNTS), strict=False)
        tiles = zip(_numbers(tags, TILE_OFFSETS), _numbers(tags, TILE_BYTE_COUNTS), strict=False)
        return any(
            offset + count > len(content) for parts in (strips, tiles) for offset, count in parts
        )
    except Exception:  # noqa: BLE001  # the header is unreadable and may be truncated itself
        order: Literal["little", "big"] = "little" if content[:2] == b"II" else "big"
        return int.from_bytes(content[4:8], order) + 2 > len(content)


def _numbers(tags: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> Iterator[int]:
    value = tags.get(tag, ())
    yield from value if isinstance(value, tuple) else (value,)


def _is_avif_truncated(content: bytes) -> bool:
    """Return whether the top-level boxes of an ISO base media file end elsewhere than the file."""
    position = 0
    while position + 8 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(content[position + 8 : position + 16], "big")
        if size < 8:  # noqa: PLR2004  # 0: the box extends to the end of the file; 1-7: invalid
            return False
        position += size
    return position != len(content)


def _has_avif_signature(content: bytes) -> bool:
    """Search all brands for AVIF, since the major brand may name another container."""
    if content[4:8] != b"ftyp":
        return False
    brands = content[8 : min(int.from_bytes(content[:4], "big"), 256)]
    return any(brands[at : at + 4] in AVIF_BRANDS for at in range(0, len(brands), 4) if at != 4)  # noqa: PLR2004


def _jpeg(file: io.BytesIO) -> ImageFile.ImageFile:
    # Pillow's factory would open a file with several pictures as MPO; only the first is needed.
    return JpegImagePlugin.JpegImageFile(file)


FORMATS = (
    Format("image/jpeg", lambda content: content[:3] == b"\xff\xd8\xff", _jpeg, _is_jpeg_truncated),
    Format(
        "image/png",
        lambda content: content[:8] == b"\x89PNG\r\n\x1a\n",
        PngImagePlugin.PngImageFile,
        _is_png_truncated,
    ),
    Format(
        "image/webp",
        lambda content: content[:4] == b"RIFF" and content[8:12] == b"WEBP",
        WebPImagePlugin.WebPImageFile,
        _is_webp_truncated,
    ),
    Format(
        "image/gif",
        lambda content: content[:6] in {b"GIF87a", b"GIF89a"},
        GifImagePlugin.GifImageFile,
        _is_gif_truncated,
    ),
    Format(
        "image/bmp",
        lambda content: content[:2] == b"BM",
        bmp.BmpFile,
        _is_bmp_truncated,
    ),
    Format(
        "image/tiff",
        lambda content: content.startswith(tuple(TiffImagePlugin.PREFIXES)),
        TiffImagePlugin.TiffImageFile,
        _is_tiff_truncated,
    ),
    Format("image/avif", _has_avif_signature, AvifImagePlugin.AvifImageFile, _is_avif_truncated),
)
"""The supported formats."""
