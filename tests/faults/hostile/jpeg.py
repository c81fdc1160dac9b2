"""JPEG files that cost more than pictures of their size (ITU-T T.81)."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

MAX_FILE_BYTES = 10 * 1024 * 1024 - 64


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def small(**options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 120, 30)).save(file, "JPEG", subsampling=0, **options)
    return file.getvalue()


def with_size(content: bytes, width: int, height: int) -> tuple[bytes, bytes]:
    """Return the tables and the frame header for another size, and the scans, of a JPEG."""
    at, tables = 2, [b"\xff\xd8"]
    while content[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        part = content[at:end]
        if part[1] in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
            part = part[:5] + struct.pack(">HH", height, width) + part[9:]
        tables.append(part)
        at = end
    return b"".join(tables), content[at:]


def scan(component: int, first: int = 0, last: int = 63, bits: int = 0) -> bytes:
    table = 0 if component == 1 else 0x11
    return segment(0xDA, bytes([1, component, table, first, last, bits]))


END = b"\xff\xd9"


def empty_scans(scans: int, side: tuple[int, int] = (8000, 6200)) -> bytes:
    """Baseline; each scan has no data, and costs a pass over all blocks."""
    tables, _ = with_size(small(quality=50), *side)
    return tables + scan(1) * scans + scan(2) + scan(3) + END


def refinements(scans: int) -> bytes:
    """Progressive; each scan refines all coefficients of all blocks again."""
    tables, _ = with_size(small(progressive=True), 8000, 6200)
    first = segment(0xDA, bytes([3, 1, 0, 2, 0x11, 3, 0x11, 0, 0, 1]))
    steps = b"".join(scan(1, 1, 63, 0x10 | (number % 2)) for number in range(scans))
    return tables + first + steps + END


def arithmetic(scans: int) -> bytes:
    """Arithmetic coding, which is slow, in many scans."""
    tables, _ = with_size(small(), 8000, 6200)
    tables = tables.replace(b"\xff\xc0", b"\xff\xc9")
    return tables + scan(1) * scans + scan(2) + scan(3) + END


def restarts() -> bytes:
    """A restart after each block: floods of markers, most of them out of order."""
    tables, _ = with_size(small(), 8000, 6200)
    flood = b"".join(bytes([0xFF, 0xD0 + number % 7]) for number in range(64_000))
    data = segment(0xDA, bytes([3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0]))
    return tables + segment(0xDD, b"\0\1") + data + flood * 70 + END


def padding() -> bytes:
    """Ten megabytes of fill bytes before a marker."""
    content = small()
    return content[:2] + b"\xff" * (MAX_FILE_BYTES - len(content)) + content[2:]


def comments() -> bytes:
    """As many empty segments as fit."""
    content = small()
    count = (MAX_FILE_BYTES - len(content)) // 4
    return content[:2] + segment(0xFE, b"") * count + content[2:]


def profiles() -> bytes:
    """As many parts of a color profile as fit; readers sort and join them."""
    content = small()
    part = segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(6))
    return content[:2] + part * ((MAX_FILE_BYTES - len(content)) // len(part)) + content[2:]


def resources() -> bytes:
    """Photoshop resources of no bytes: an entry of a dictionary for each."""
    content = small()
    blocks = b"".join(
        b"8BIM" + struct.pack(">HBBI", number % 65_000, 0, 0, 0) for number in range(5_000)
    )
    part = segment(0xED, b"Photoshop 3.0\0" + blocks)
    return content[:2] + part * ((MAX_FILE_BYTES - len(content)) // len(part)) + content[2:]


def exif_directory() -> bytes:
    """EXIF whose entries all hold the same 64 KB."""
    content = small()
    entries = b"".join(struct.pack("<HHII", number, 7, 60_000, 8) for number in range(5_000))
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 5_000) + entries + bytes(4)
    part = segment(0xE1, b"Exif\0\0" + tiff)
    return content[:2] + part * 100 + content[2:]


def thin(width: int, height: int) -> bytes:
    """An honest long and thin picture."""
    file = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def kinds() -> Iterator[tuple[str, bytes]]:
    yield "jpeg, 4,000 empty scans of 8,000 × 6,200", empty_scans(4_000)
    yield "jpeg, 64 empty scans of 8,000 × 6,200", empty_scans(60)
    yield "jpeg, 62 refinements of 8,000 × 6,200", refinements(62)
    yield "jpeg, arithmetic coding, 60 scans", arithmetic(60)
    yield "jpeg, 4,480,000 restart markers", restarts()
    yield "jpeg, 10 MB of fill bytes", padding()
    yield "jpeg, 2,600,000 empty comments", comments()
    yield "jpeg, 436,000 profile parts", profiles()
    yield "jpeg, Photoshop resources", resources()
    yield "jpeg, EXIF of 500,000 values", exif_directory()
    yield "jpeg, thin 16 × 6,000", thin(16, 6_000)
    yield "jpeg, thin 65,500 × 16", thin(65_500, 16)
    yield "jpeg, thin 30 × 16,000", thin(30, 16_000)
