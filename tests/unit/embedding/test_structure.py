"""Refusal of files that are floods of small parts, and acceptance of what encoders write."""

from __future__ import annotations

import io
import random
import re
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import BmpImagePlugin, Image

from imagesearch_services import embedding
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.pictures.bmp import BmpFile
from imagesearch_services.embedding.pictures.picture_file import PictureFile
from tests.pictures import encoded, photo

JPEG = encoded(photo(1))
PNG = encoded(photo(1), "PNG")
GIF = encoded(photo(1), "GIF")
MAX_REFUSAL_S = 0.5
"""Processor time in which a flood is refused, in seconds; most take a few milliseconds."""


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def chunk(kind: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


def overlapping_tags(count: int, value_bytes: int) -> bytes:
    """Return Exif metadata whose tags all have the same values."""
    entries = b"".join(
        struct.pack("<HHII", 40_000 + number, 7, value_bytes, 8) for number in range(count)
    )
    return b"II*\0" + struct.pack("<IH", 8, count) + entries + bytes(value_bytes)


def stretched_jpeg(scans: int) -> bytes:
    """Return a sequential JPEG of 8000 × 6200 pixels with empty scans."""
    small = bytearray(encoded(Image.new("RGB", (64, 64)), subsampling=0))
    at = small.index(b"\xff\xc0") + 5
    small[at : at + 4] = struct.pack(">HH", 6200, 8000)
    head = bytes(small[: small.index(b"\xff\xda")])
    return head + segment(0xDA, bytes((1, 1, 0, 0, 63, 0))) * scans + b"\xff\xd9"


def tiff(*entries: tuple[int, int, int, int]) -> bytes:
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)
    return head.ljust(400, b"\0") + bytes(600)


def tiled_tiff(width: int, height: int) -> bytes:
    """Return a TIFF of 100 × 100 pixels in one tile of this size."""
    return tiff(
        *((256, 4, 1, 100), (257, 4, 1, 100), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1)),
        *((322, 4, 1, width), (323, 4, 1, height), (324, 4, 1, 400), (325, 4, 1, 600)),
    )


def avif_of_items(count: int) -> bytes:
    avif = encoded(photo(1), "AVIF")
    return avif + (struct.pack(">I", 8) + b"infe") * count


FLOODS: dict[str, Callable[[], bytes]] = {
    "empty scans": lambda: stretched_jpeg(1000),
    "scans of a large picture": lambda: stretched_jpeg(40),
    "segments": lambda: JPEG[:2] + segment(0xFE, b"") * 2_000_000 + JPEG[2:],
    "Photoshop resources": lambda: (
        JPEG[:2] + segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4" * 9000) * 150 + JPEG[2:]
    ),
    "padding": lambda: JPEG[:2] + b"\xff" * 9_000_000 + JPEG[2:],
    "long Exif": lambda: JPEG[:2] + segment(0xE1, b"Exif\0\0" + bytes(60_000)) * 150 + JPEG[2:],
    "overlapping tags": lambda: (
        JPEG[:2] + segment(0xE1, b"Exif\0\0" + overlapping_tags(900, 50_000)) + JPEG[2:]
    ),
    "overlapping tags of a PNG": lambda: (
        PNG[:33] + chunk(b"eXIf", overlapping_tags(900, 500_000)) + PNG[33:]
    ),
    "chunks of a WebP": lambda: (
        encoded(photo(1), "WEBP")[:12] + struct.pack("<4sI", b"abcd", 0) * 1_000_000
    ),
    "chunks": lambda: PNG[:33] + chunk(b"teXt", b"") * 800_000 + PNG[33:],
    "texts": lambda: PNG[:33] + chunk(b"tEXt", b"a\0b") * 600_000 + PNG[33:],
    "comments": lambda: GIF[:781] + b"!\xfe\x01a\0" * 1_900_000 + GIF[781:],
    "huge tile": lambda: tiled_tiff(25_600, 26_000),
    "tags of a TIFF": lambda: (
        tiff(*((60_000, 4, 1, 0),) * 30)[:8]
        + struct.pack("<H", 60_000)
        + struct.pack("<HHII", 60_000, 4, 1, 0) * 60_000
    ),
    "overlapping tags of a TIFF": lambda: tiff(
        *((50_000 + number, 7, 900, 0) for number in range(20))
    ),
    "items": lambda: avif_of_items(500_000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_refused_at_once(name: str) -> None:
    content = FLOODS[name]()
    began_s = time.process_time()
    with pytest.raises(ServiceError) as caught:
        PictureFile(content)
    assert caught.value.reason is Reason.IMAGE_TOO_COSTLY
    assert {"limit", "unit"} <= caught.value.metadata.keys()
    assert time.process_time() - began_s < MAX_REFUSAL_S


def test_texts_and_profiles_of_any_size_are_skipped() -> None:
    text = np.random.default_rng(0).integers(97, 122, 1_500_000, np.uint8).tobytes()
    for body in (
        chunk(b"tEXt", b"workflow\0" + text),
        chunk(b"zTXt", b"workflow\0\0" + zlib.compress(text)),
        chunk(b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(text)),
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(text)),
    ):
        found = PictureFile(PNG[:33] + body + PNG[33:]).decode()
        assert found.image.tobytes() == PictureFile(PNG).decode().image.tobytes()


def test_an_orientation_in_the_text_of_a_png_is_applied() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    assert PictureFile(PNG[:33] + text + PNG[33:]).shown_size == (240, 320)


@pytest.mark.parametrize(
    "content",
    [
        JPEG[:2] + segment(0xE2, b"ICC_PROFILE\0" + bytes(60_000)) * 100 + JPEG[2:],
        JPEG[:2] + b"\xff" * 1000 + JPEG[2:],
        GIF[:781] + (b"!\xfe" + (b"\xff" + b"a" * 255) * 4000 + b"\0") + GIF[781:],
        encoded(photo(1), "TIFF", compression="tiff_adobe_deflate", tile=(512, 512)),
    ],
    ids=["color profile", "padding", "long comment", "large tile"],
)
def test_what_encoders_write_is_read(content: bytes) -> None:
    assert PictureFile(content).decode().image.size == (320, 240)


def bmp(width: int, height: int, data: bytes, *, is_four_bit: bool = False) -> bytes:
    colors = 16 if is_four_bit else 256
    palette = b"".join(bytes((level, 255 - level, 7, 0)) for level in range(colors))
    start = 54 + len(palette)
    bits, compression = (4, 2) if is_four_bit else (8, 1)
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(data), 0, 0, start)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), *[0] * 4)
        + palette
        + data
    )


def runs(random_: random.Random, width: int, height: int) -> bytes:
    """Return runs, literals, jumps and line ends, which fill the picture in most cases."""
    data = b""
    while len(data) < height * 12:
        kind = random_.random()
        if kind < 0.4:
            data += bytes((random_.randint(1, width), random_.randint(0, 255)))
        elif kind < 0.6:
            data += b"\0\0"
        elif kind < 0.7:
            data += b"\0\2" + bytes((random_.randint(0, 9), random_.randint(0, 2)))
        else:
            count = random_.randint(3, 20)
            data += bytes((0, count)) + random_.randbytes(count + count % 2)
    return data + bytes((width, 5, 0, 0)) * height + b"\0\1"


def outcome(reader: type[BmpImagePlugin.BmpImageFile], content: bytes) -> bytes | None:
    try:
        image = reader(io.BytesIO(content))
        image.load()
    except ValueError:
        return None
    return image.convert("RGB").tobytes()


def test_run_length_encoding_is_decoded_as_by_pillow() -> None:
    random_ = random.Random(1)  # noqa: S311  # seeded
    decoded = 0
    for number in range(600):
        width, height = random_.randint(1, 40), random_.randint(1, 20)
        data = runs(random_, width, height)
        content = bmp(width, height, data, is_four_bit=number % 2 == 0)
        expected = outcome(BmpImagePlugin.BmpImageFile, content)
        assert outcome(BmpFile, content) == expected
        decoded += expected is not None
    assert decoded > 300


def test_a_wide_picture_of_empty_lines_is_decoded_fast() -> None:
    content = bmp(300_000, 16, b"\x01\x01\0\0" * 16 + b"\0\1")
    began_s = time.process_time()
    picture = PictureFile(content).decode()
    assert picture.image.getpixel((0, 0)) != picture.image.getpixel((1, 0))
    assert time.process_time() - began_s < 1


def test_the_service_opens_no_file_of_a_caller_in_its_own_process() -> None:
    """The import linter checks the readers of this repository; this checks those of libraries."""
    folder = Path(embedding.__file__).parent
    readers = re.compile(r"\bImage\.open\b|\bimdecode\b|\bimread\b|ImagePlugin\b|new_from_buffer")
    caged = {"pictures/formats.py", "pictures/bmp.py", "cage/zygote.py"}
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if readers.search(path.read_text())
    }
    assert found == caged
