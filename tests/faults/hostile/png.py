"""PNG files that cost more than pictures of their size (PNG specification, third edition)."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

MAX_FILE_BYTES = 10 * 1024 * 1024 - 64
BLOCK_BYTES = 1 << 22
"""Zeros in each of the repeated blocks of compressed data."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def zeros(count: int) -> bytes:
    """Return zeros, compressed (zlib format, RFC 1950), without compressing them all."""
    whole, rest = divmod(count, BLOCK_BYTES)
    packer = zlib.compressobj(9, wbits=-15)
    first = packer.compress(bytes(BLOCK_BYTES)) + packer.flush(zlib.Z_FULL_FLUSH)
    last = packer.compress(bytes(rest)) + packer.flush()
    checksum = struct.pack(">HH", count % 65_521, 1)  # Adler-32 of zeros
    return b"\x78\xda" + first * whole + last + checksum


def header(width: int, height: int, bits: int = 8, kind: int = 2, interlaced: int = 0) -> bytes:
    size = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    return SIGNATURE + chunk(b"IHDR", size)


def plain() -> tuple[bytes, bytes]:
    """Return the header of a small picture, and the rest of the file."""
    file = io.BytesIO()
    Image.effect_noise((320, 240), 60).convert("RGB").save(file, "PNG")
    return file.getvalue()[:33], file.getvalue()[33:]


def with_chunks(kind: bytes, body: bytes = b"", count: int | None = None) -> bytes:
    """Return a small picture with a chunk repeated, as often as it fits or `count` times."""
    before, after = plain()
    one = chunk(kind, body)
    room = (MAX_FILE_BYTES - len(before) - len(after)) // len(one)
    return before + one * (room if count is None else count) + after


def numbered_texts() -> bytes:
    """Texts with keys of their own."""
    before, after = plain()
    texts = b"".join(chunk(b"tEXt", f"k{number}\0".encode()) for number in range(500_000))
    return before + texts + after


def honest_text() -> bytes:
    """Text of 1.5 MB, as drawing programs store their settings."""
    text = bytes(random.Random(1).choices(range(97, 122), k=1_500_000))  # noqa: S311  # reproducible
    return with_chunks(b"zTXt", b"workflow\0\0" + zlib.compress(text, 6), 1)


def split_data() -> bytes:
    """Pixel data in chunks of one byte."""
    data = zlib.compress(bytes((320 * 3 + 1) * 240), 0)
    pieces = b"".join(chunk(b"IDAT", data[at : at + 1]) for at in range(len(data)))
    return header(320, 240) + pieces + chunk(b"IEND")


def kinds() -> Iterator[tuple[str, bytes]]:
    yield "png, honest text of 1.5 MB", honest_text()
    yield "png, 870,000 unknown chunks", with_chunks(b"abCd")
    yield "png, 500,000 texts", numbered_texts()
    yield "png, 60 compressed texts of 1 MB", with_chunks(b"zTXt", b"a\0\0" + zeros(1_000_000), 60)
    yield "png, one compressed text of 4 GB", with_chunks(b"zTXt", b"a\0\0" + zeros(1 << 32), 1)
    yield "png, color profile of 1 GB", with_chunks(b"iCCP", b"a\0\0" + zeros(1 << 30), 1)
    yield "png, 230,000 frame controls", with_chunks(b"fcTL", bytes(26))
    yield "png, 800,000 empty data chunks", with_chunks(b"IDAT")
    yield "png, data in 230,641 chunks", split_data()
    interlaced = header(7_000, 7_100, 1, 0, 1) + chunk(b"IDAT", zeros(6_300_000)) + chunk(b"IEND")
    yield "png, interlaced bits, 7,000 × 7,100", interlaced
    huge = header(7_000, 7_100, 16, 6) + chunk(b"IDAT", zeros(7_100 * 56_001)) + chunk(b"IEND")
    yield "png, 16 bits and alpha, 7,000 × 7,100", huge
    excess = header(64, 64) + chunk(b"IDAT", zeros(6_000_000_000)) + chunk(b"IEND")
    yield "png, 6 GB of data behind 64 × 64", excess
    yield (
        "png, XMP of 10 MB",
        with_chunks(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<a>" * 3_300_000, 1),
    )
    yield (
        "png, EXIF in a cycle",
        with_chunks(b"eXIf", b"II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\x08\0\0\0", 9),
    )
