"""Walks the structure of picture files in little time, and refuses floods of small parts.

Decoders and parsers take time for each segment, chunk, tag or block of a file, whatever it
contains; some join them in quadratic time. A walk here stops at a limit, so that it takes
milliseconds. The limits are many times what encoders write.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Literal

from imagesearch_services.embedding.pictures.limits import check_size, too_costly

MAX_PARTS = 20_000
"""Maximum chunks of a PNG or WebP, or blocks before the pixels of a GIF. A PNG of 10 MiB in chunks
of 1 KiB has 10,000."""
MAX_SEGMENTS = 1_000
"""Maximum segments of a JPEG before its pixels. A color profile of 10 MiB takes 160."""
MAX_PADDING_BYTES = 65_536
"""Maximum padding between the segments of a JPEG, in bytes."""
MAX_RESOURCES = 200
"""Maximum Photoshop resources in a segment of a JPEG; Photoshop writes about thirty."""
RESOURCE = b"8BIM"
"""Signature of a Photoshop resource."""
MAX_TAGS = 1_000
"""Maximum tags in a directory of a TIFF or of Exif metadata."""
MAX_EXIF_BYTES = 1024 * 1024
"""Maximum size of Exif metadata, in bytes."""
MAX_ITEMS = 5_000
"""Maximum items of an AVIF. A picture of 50 megapixels in tiles of 256 pixels has 800."""
MAX_UNSEEN = 4
"""Maximum pixels of a tile of a TIFF as a multiple of the pixels of the picture."""
SMALL_TILE_PIXELS = 1_048_576
"""Pixels of a tile that any TIFF may have."""

TEXT_CHUNKS = {b"tEXt", b"zTXt", b"iTXt", b"iCCP"}
"""Chunks of a PNG that do not change its pixels: text, and a color profile, which is not applied.
Pillow refuses pictures with more than 1 MiB of them."""
ORIENTATION_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
"""Keywords of texts in which Pillow finds the orientation."""
MAX_ORIENTATION_TEXT_BYTES = 262_144
"""Maximum size of such a text that is read, in bytes."""

TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
TYPE_BYTES |= {16: 8, 17: 8, 18: 8}
"""Size of a value of each TIFF type, in bytes (TIFF 6.0, section 2; BigTIFF)."""

INLINE_BYTES = 8
"""Size of values that may be in the tag itself, in bytes; 4 in a plain TIFF."""

IMAGE_WIDTH, IMAGE_LENGTH, TILE_WIDTH, TILE_LENGTH = 256, 257, 322, 323
"""Tags of a TIFF."""

PADDING = re.compile(rb"\xff+")
SOS, APP1, APP13 = 0xDA, 0xE1, 0xED
"""Markers of a JPEG (ITU-T T.81, table B.1)."""
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length: TEM, RST0-7, SOI."""


def check_jpeg(content: bytes) -> None:
    """Check the segments before the first scan.

    Raises:
        ServiceError: IMAGE_TOO_COSTLY.
    """
    exif: list[bytes] = []
    position, padding = 2, 0
    for _ in range(MAX_SEGMENTS):
        match = PADDING.match(content, position)
        if match is None or match.end() >= len(content):
            return
        padding += match.end() - position - 1
        if padding > MAX_PADDING_BYTES:
            raise too_costly(
                "the JPEG is padded between its segments", str(MAX_PADDING_BYTES), "bytes"
            )
        marker, position = content[match.end()], match.end() + 1
        if marker == SOS:
            check_exif(b"".join(exif))
            return
        if marker in WITHOUT_LENGTH:
            continue
        size = int.from_bytes(content[position : position + 2], "big")
        if marker == APP13 and content.count(RESOURCE, position, position + size) > MAX_RESOURCES:
            raise too_costly(
                f"the JPEG has more than {MAX_RESOURCES} Photoshop resources in a segment",
                str(MAX_RESOURCES),
                "resources",
            )
        if marker == APP1 and content[position + 2 : position + 8] == b"Exif\0\0":
            exif.append(content[position + 8 : position + size])
        position += size
    raise too_costly(
        f"the JPEG has more than {MAX_SEGMENTS:,} segments before its pixels",
        str(MAX_SEGMENTS),
        "segments",
    )


def without_texts(content: bytes) -> bytes:
    """Return a PNG without the chunks that its pixels do not depend on.

    Raises:
        ServiceError: IMAGE_TOO_COSTLY.
    """
    kept, begin, position = [], 0, 8
    for _ in range(MAX_PARTS):
        kind = content[position + 4 : position + 8]
        if len(kind) < 4 or kind == b"IEND":  # noqa: PLR2004  # a kind has four letters
            kept.append(content[begin:])
            return b"".join(kept) if len(kept) > 1 else content
        size = int.from_bytes(content[position : position + 4], "big")
        end = position + 12 + size
        if kind in TEXT_CHUNKS and not _holds_orientation(content, position + 8, size):
            kept.append(content[begin:position])
            begin = end
        elif kind == b"eXIf":
            check_exif(content[position + 8 : position + 8 + size])
        position = end
    raise too_costly(f"the PNG has more than {MAX_PARTS:,} chunks", str(MAX_PARTS), "chunks")


def _holds_orientation(content: bytes, position: int, size: int) -> bool:
    return size <= MAX_ORIENTATION_TEXT_BYTES and content.startswith(ORIENTATION_TEXTS, position)


def check_gif(content: bytes) -> None:
    """Check the extension blocks before the first picture.

    Raises:
        ServiceError: IMAGE_TOO_COSTLY.
    """
    flags = content[10] if len(content) > 10 else 0  # noqa: PLR2004  # of the screen descriptor
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    in_extension = False
    for _ in range(MAX_PARTS):
        if position >= len(content):
            return
        if in_extension:
            in_extension = content[position] != 0
            position += 1 + content[position]
        elif content[position] == ord("!"):
            in_extension = True
            position += 2
        else:
            return
    raise too_costly(
        f"the GIF has more than {MAX_PARTS:,} blocks before its pixels", str(MAX_PARTS), "blocks"
    )


def check_webp(content: bytes) -> None:
    """Check the number of chunks and the size of a picture.

    Pillow allocates its pixels when it reads the header.

    Raises:
        ServiceError: IMAGE_TOO_COSTLY, IMAGE_TOO_LARGE or IMAGE_TOO_SMALL.
    """
    size = webp_size(content)
    if size is not None:
        check_size(*size)
    position = 12
    for _ in range(MAX_PARTS):
        if position >= len(content):
            return
        length = int.from_bytes(content[position + 4 : position + 8], "little")
        position += 8 + length + length % 2
    raise too_costly(f"the WebP has more than {MAX_PARTS:,} chunks", str(MAX_PARTS), "chunks")


def webp_size(content: bytes) -> tuple[int, int] | None:
    """Return width and height by the first chunk of a WebP; None if they can't be read.

    Source: RFC 9649, sections 2.5 to 2.7; RFC 6386, section 9.1.
    """
    if len(content) < 30:  # noqa: PLR2004  # bytes up to the sizes
        return None
    match content[12:16]:
        case b"VP8X":
            bits = int.from_bytes(content[24:30], "little")
            return (bits & 0xFFFFFF) + 1, (bits >> 24) + 1
        case b"VP8L":
            bits = int.from_bytes(content[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack("<HH", content[26:30])
            return width & 0x3FFF, height & 0x3FFF
    return None


def check_avif(content: bytes) -> None:
    """Check the number of items, which the decoder looks up one after the other.

    Raises:
        ServiceError: IMAGE_TOO_COSTLY.
    """
    if content.count(b"infe") > MAX_ITEMS:
        raise too_costly(f"the AVIF has more than {MAX_ITEMS:,} items", str(MAX_ITEMS), "items")


def check_tiff(content: bytes) -> None:
    """Check the tags of the first picture: their number, their total size, the size of its tiles.

    Raises:
        ServiceError: IMAGE_TOO_COSTLY.
    """
    numbers: dict[int, int] = {}
    total = 0
    for number, (tag, size, value) in enumerate(tags(content)):
        if number >= MAX_TAGS:
            raise too_costly(f"the TIFF has more than {MAX_TAGS:,} tags", str(MAX_TAGS), "tags")
        total += _read_bytes(content, size, value)
        numbers.setdefault(tag, value)
    if total > len(content):
        raise too_costly(
            "the tags of the TIFF are larger than the file", str(len(content)), "bytes"
        )
    picture, tile = (
        numbers.get(width, 0) * numbers.get(height, 0)
        for width, height in ((IMAGE_WIDTH, IMAGE_LENGTH), (TILE_WIDTH, TILE_LENGTH))
    )
    allowed = max(SMALL_TILE_PIXELS, MAX_UNSEEN * picture)
    if tile > allowed:
        raise too_costly(
            f"a tile of the TIFF has {tile:,} pixels, the picture only {picture:,}",
            str(allowed),
            "pixels",
        )


def check_exif(exif: bytes) -> None:
    """Check the first directory of Exif metadata, whose tags may overlap.

    Raises:
        ServiceError: IMAGE_TOO_COSTLY.
    """
    if len(exif) > MAX_EXIF_BYTES:
        raise too_costly(f"the Exif metadata has {len(exif):,} bytes", str(MAX_EXIF_BYTES), "bytes")
    total = 0
    exif = exif.removeprefix(b"Exif\0\0")
    for number, (_, size, value) in enumerate(tags(exif)):
        total += _read_bytes(exif, size, value)
        if number >= MAX_TAGS or total > 2 * len(exif):
            raise too_costly(
                "the tags of the Exif metadata are larger than the metadata",
                str(len(exif)),
                "bytes",
            )


def _read_bytes(content: bytes, size: int, offset: int) -> int:
    """Return how many bytes a parser reads for the values of a tag: those inside the file."""
    return min(size, max(0, len(content) - offset)) if size > INLINE_BYTES else 0


def tags(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the tags of the first directory: tag, size of its values in bytes, first value.

    The value is only right for a single integer. Source: TIFF 6.0, section 2; the BigTIFF File
    Format, section "The Design".
    """
    order: Literal["<", ">"] = "<" if content[:2] == b"II" else ">"
    is_big = b"+" in content[2:4]  # 43 in either byte order; 42 in a plain TIFF
    first, number, entry = ("Q", "Q", "HHQQ") if is_big else ("I", "H", "HHII")
    try:
        (at,) = struct.unpack_from(order + first, content, 8 if is_big else 4)
        (count,) = struct.unpack_from(order + number, content, at)
        at += struct.calcsize(order + number)
        size = struct.calcsize(order + entry)
        for position in range(at, at + count * size, size):
            tag, kind, values, value = struct.unpack_from(order + entry, content, position)
            if values == 1 and TYPE_BYTES.get(kind) == 2 and order == ">":  # noqa: PLR2004
                value >>= 48 if is_big else 16  # a short value is left-justified
            elif values == 1 and TYPE_BYTES.get(kind) == 2:  # noqa: PLR2004
                value &= 0xFFFF
            yield tag, TYPE_BYTES.get(kind, 0) * values, value  # parsers skip unknown types
    except (struct.error, OverflowError):  # outside the file; the parser will find out
        return
