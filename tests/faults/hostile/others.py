"""GIF, BMP, WebP and AVIF files that cost more than pictures of their size."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from PIL import Image

MAX_FILE_BYTES = 10 * 1024 * 1024 - 64


def bmp_rows(width: int, height: int) -> bytes:
    """BMP, RLE8: ends of line in a very wide picture."""
    return _bmp(width, height, b"\x01\x01\x00\x00" * height + b"\x00\x01")


def bmp_jumps(width: int, height: int) -> bytes:
    """BMP, RLE8: jumps of 255 pixels."""
    return _bmp(width, height, b"\x00\x02\xff\x00" * (width * height // 255) + b"\x00\x01")


def _bmp(width: int, height: int, data: bytes) -> bytes:
    palette = b"".join(bytes([level, level, level, 0]) for level in range(256))
    sizes = (40, width, height, 1, 8, 1, len(data), 2835, 2835, 256, 256)
    start = 54 + len(palette)
    head = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start)
    return head + struct.pack("<IiiHHIIiiII", *sizes) + palette + data


def gif(width: int, height: int, blocks: bytes, palette: bytes = bytes(6)) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + palette + blocks + b";"


def gif_image(width: int, height: int, data: bytes) -> bytes:
    parts = [data[at : at + 255] for at in range(0, len(data), 255)]
    sub_blocks = b"".join(bytes([len(part)]) + part for part in parts)
    return b"," + struct.pack("<HHHHBB", 0, 0, width, height, 0, 2) + sub_blocks + b"\0"


def lzw_zeros(pixels: int) -> bytes:
    """Return the LZW codes of equal pixels (GIF89a, appendix F), with two bits a pixel."""
    bits, size, code, next_code, left = [(4, 3)], 3, 0, 6, pixels - 1
    bits.append((0, 3))
    length = 2
    while left > 0:
        if next_code > 4095:
            bits.append((4, size))
            size, next_code, length = 3, 6, 1
            bits.append((0, size))
            left -= 1
            length = 2
            continue
        code = next_code
        bits.append((code, size))
        left -= length
        length += 1
        next_code += 1
        if next_code == 1 << size and size < 12:
            size += 1
    bits.append((5, size))
    number, filled, out = 0, 0, bytearray()
    for value, width in bits:
        number |= value << filled
        filled += width
        while filled >= 8:
            out.append(number & 255)
            number >>= 8
            filled -= 8
    out.append(number & 255)
    return bytes(out)


def gif_frames() -> bytes:
    one = gif_image(16, 16, b"\x84\x8f\xa9\xcb\xed\x0f\xa3\x9c\xb4\xda\x8b\xb3>\x05\0")
    return gif(16, 16, one * (MAX_FILE_BYTES // len(one) - 1))


def gif_comments() -> bytes:
    image = gif_image(64, 64, lzw_zeros(4096))
    return gif(64, 64, b"!\xfe\1a\0" * ((MAX_FILE_BYTES - len(image)) // 5 - 9) + image)


def webp_chunks(kind: bytes, body: bytes) -> bytes:
    """WebP with a chunk repeated as often as it fits."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "WEBP", exif=b"Exif\0\0II*\0")
    content = file.getvalue()
    one = kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    content = content[:30] + one * ((MAX_FILE_BYTES - len(content)) // len(one)) + content[30:]
    return content[:4] + struct.pack("<I", len(content) - 8) + content[8:]


def animation(file_format: str, size: tuple[int, int], frames: int, **options: object) -> bytes:
    file = io.BytesIO()
    first = Image.new("RGB", size)
    rest = [Image.new("RGB", size, (number % 256, 9, 9)) for number in range(1, frames)]
    first.save(file, file_format, save_all=True, append_images=rest, **options)
    return file.getvalue()


def flat(file_format: str, mode: str, size: tuple[int, int], **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, file_format, **options)
    return file.getvalue()


def box(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def avif_parts() -> tuple[bytes, bytes, bytes]:
    """Return the `ftyp` box, the `meta` box and the rest of a small AVIF."""
    content = flat("AVIF", "RGB", (64, 64), speed=10)
    first = int.from_bytes(content[:4], "big")
    second = first + int.from_bytes(content[first : first + 4], "big")
    return content[:first], content[first:second], content[second:]


def avif_boxes() -> bytes:
    kind, meta, rest = avif_parts()
    count = (MAX_FILE_BYTES - len(kind + meta + rest)) // 8
    return kind + meta + rest + box(b"free") * count


def avif_properties() -> bytes:
    """A million properties, and the picture's data where its boxes say."""
    kind, meta, rest = avif_parts()
    gap = box(b"free", bytes(len(meta) - 8))
    at = meta.index(b"iprp")
    size = int.from_bytes(meta[at - 4 : at], "big")
    flood = box(b"iprp", box(b"ipco", box(b"abcd") * 1_000_000) + box(b"ipma", bytes(8)))
    inner = meta[12 : at - 4] + flood + meta[at - 4 + size :]
    return kind + gap + rest + box(b"meta", bytes(4) + inner)


def avif_nested(depth: int = 100_000) -> bytes:
    kind, meta, rest = avif_parts()
    total = 8 * depth
    nest = b"".join(struct.pack(">I", total - 8 * level) + b"meta" for level in range(depth))
    return kind + nest + meta + rest


def kinds() -> Iterator[tuple[str, bytes]]:
    yield "bmp, runs, 3,000,000 × 16", bmp_rows(3_000_000, 16)
    yield "bmp, runs, 7,000 × 7,000", bmp_rows(7_000, 7_000)
    yield "bmp, jumps, 7,000 × 7,000", bmp_jumps(7_000, 7_000)
    yield "gif, 300,000 frames", gif_frames()
    yield "gif, 2,000,000 comments", gif_comments()
    yield (
        "gif, 16 × 16 on a screen of 7,000 × 7,000",
        gif(7_000, 7_000, gif_image(16, 16, lzw_zeros(256))),
    )
    yield (
        "gif, equal pixels, 7,000 × 7,000",
        gif(7_000, 7_000, gif_image(7_000, 7_000, lzw_zeros(49_000_000))),
    )
    yield "gif, empty frame of 65,535 × 65,535", gif(64, 64, gif_image(65_535, 65_535, b""))
    yield "webp, 1,000,000 chunks", webp_chunks(b"abcd", b"")
    yield "webp, 400,000 frames", webp_chunks(b"ANMF", bytes(16))
    yield (
        "webp, lossless, 7,000 × 7,000",
        flat("WEBP", "RGBA", (7_000, 7_000), lossless=True, method=0),
    )
    yield (
        "webp, animation of 60 × 2,000 × 2,000",
        animation("WEBP", (2_000, 2_000), 60, method=0, quality=1),
    )
    yield "avif, 7,000 × 7,000", flat("AVIF", "RGB", (7_000, 7_000), speed=10, quality=1)
    yield "avif, 1,300,000 boxes", avif_boxes()
    yield "avif, 1,000,000 properties", avif_properties()
    yield "avif, 100,000 nested boxes", avif_nested()
