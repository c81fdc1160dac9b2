"""Small valid pictures of every format, with many of the options that the formats have."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from tests.fuzz.pictures.containers import PNG_SIGNATURE, Part, build_png, parse_png

SIZES = ((16, 16), (33, 17), (48, 40))
"""Sizes in pixels: small, so that a decoder takes microseconds."""


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def drawing(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Return a picture with gradients and noise, the same for the same arguments."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(width * height).integers(0, 64, (height, width, 4))
    channels = np.stack([x * 5, y * 7, x * y, 255 - x * 3], -1) + noise
    rgba = Image.fromarray((channels % 256).astype(np.uint8), "RGBA")
    if mode in {"I", "F", "I;16"}:
        levels = np.asarray(rgba.convert("L"), np.uint16 if mode == "I;16" else np.int32) * 200
        return Image.fromarray(levels.astype(np.float32) if mode == "F" else levels)
    return rgba if mode == "RGBA" else rgba.convert("RGB").convert(mode)


@functools.cache
def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation: int = 6) -> bytes:
    data = Image.Exif()
    data[274] = orientation
    data[271] = "Maker"
    data.get_ifd(0x8769)[36864] = b"0232"
    data.get_ifd(0x8825)[1] = "N"
    return data.tobytes()


def jpegs(size: tuple[int, int]) -> Iterator[bytes]:
    for mode in ("L", "RGB", "CMYK"):
        yield encoded(drawing(size, mode), "JPEG")
        yield encoded(drawing(size, mode), "JPEG", progressive=True)
    for subsampling in (0, 1, 2):
        yield encoded(drawing(size), "JPEG", subsampling=subsampling, optimize=True)
    yield encoded(drawing(size), "JPEG", restart_marker_blocks=1)
    yield encoded(drawing(size), "JPEG", restart_marker_rows=1, progressive=True)
    yield encoded(drawing(size), "JPEG", keep_rgb=True, quality=20)
    yield encoded(drawing(size), "JPEG", exif=exif(), comment=b"text " * 9, dpi=(72, 72))
    yield encoded(drawing(size), "JPEG", icc_profile=profile(), xmp=b"<x:xmpmeta/>")
    yield encoded(drawing(size), "MPO", save_all=True, append_images=[drawing(size)])


def pngs(size: tuple[int, int]) -> Iterator[bytes]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield encoded(drawing(size, mode), "PNG")
    for bits in (1, 2, 4):
        yield encoded(drawing(size, "P").quantize(1 << bits), "PNG", bits=bits, transparency=0)
    yield encoded(drawing(size, "L"), "PNG", transparency=7)
    yield encoded(drawing(size), "PNG", transparency=(1, 2, 3))
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "plain")
    text.add_text("Comment", "compressed " * 20, zip=True)
    text.add_itxt("Description", "ünïcode", "de", "Beschreibung", zip=True)
    yield encoded(drawing(size), "PNG", pnginfo=text, exif=exif(3), icc_profile=profile())
    frames = [drawing(size, "RGBA").rotate(angle) for angle in (90, 180)]
    yield encoded(drawing(size, "RGBA"), "PNG", save_all=True, append_images=frames, duration=9)
    for mode in ("L", "RGB"):
        yield interlaced(drawing((8, 8), mode).resize(size))


def interlaced(image: Image.Image) -> bytes:
    """Return an interlaced PNG, which Pillow does not write (PNG, section 8.2: Adam7)."""
    pixels = np.atleast_3d(np.asarray(image))
    passes = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    rows = [
        b"\0" + row.tobytes()
        for y, x, y_step, x_step in passes
        for row in pixels[y::y_step, x::x_step]
        if row.size
    ]
    parts = parse_png(encoded(image, "PNG"))
    header = Part(b"IHDR", parts[0].body[:12] + b"\1")
    return build_png([header, Part(b"IDAT", zlib.compress(b"".join(rows))), Part(b"IEND", b"")])


def webps(size: tuple[int, int]) -> Iterator[bytes]:
    for mode in ("RGB", "RGBA"):
        yield encoded(drawing(size, mode), "WEBP", method=0)
        yield encoded(drawing(size, mode), "WEBP", lossless=True, method=0)
    yield encoded(drawing(size, "RGBA"), "WEBP", alpha_quality=20, quality=5)
    yield encoded(
        drawing(size, "P").convert("RGB").quantize(8).convert("RGB"), "WEBP", lossless=True
    )
    yield encoded(drawing(size), "WEBP", exif=exif(8), icc_profile=profile(), xmp=b"<x/>")
    frames = [drawing(size, "RGBA").rotate(angle) for angle in (90, 180)]
    yield encoded(drawing(size, "RGBA"), "WEBP", save_all=True, append_images=frames, duration=9)


def gifs(size: tuple[int, int]) -> Iterator[bytes]:
    for colors in (2, 16, 256):
        yield encoded(drawing(size).quantize(colors), "GIF")
    yield encoded(drawing(size, "L"), "GIF", interlace=False, comment=b"text " * 60)
    yield encoded(drawing(size).quantize(8), "GIF", transparency=3, interlace=True)
    frames = [drawing(size).rotate(angle).quantize(30) for angle in (90, 180)]
    yield encoded(
        drawing(size).quantize(9), "GIF", save_all=True, append_images=frames, loop=0, disposal=2
    )


def bmps(size: tuple[int, int]) -> Iterator[bytes]:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield encoded(drawing(size, mode), "BMP")
    width, height = size
    for bits, compression in ((8, 1), (4, 2)):
        yield run_length_bmp(width, height, bits, compression)
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    yield bmp(size, 16, 3, masks, bytes((width * 2 + 3) // 4 * 4 * height))
    yield bmp((width, -height), 24, 0, b"", bytes((width * 3 + 3) // 4 * 4 * height))


def bmp(size: tuple[int, int], bits: int, compression: int, tables: bytes, data: bytes) -> bytes:
    """Return a BMP of an info header, its masks or colors, and its pixel data."""
    width, height = size
    start = 54 + len(tables)
    colors = len(tables) // 4 if bits <= 8 else 0
    head = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start)
    sizes = (40, width, height, 1, bits, compression, len(data), 2835, 2835, colors, colors)
    return head + struct.pack("<IiiHHIIiiII", *sizes) + tables + data


def run_length_bmp(width: int, height: int, bits: int, compression: int) -> bytes:
    palette = b"".join(bytes([level, level, level, 0]) for level in range(1 << bits))
    literal = bytes([0, 4, 1, 2, 3, 4]) if bits == 8 else bytes([0, 4, 0x12, 0x34])
    row = bytes([min(width, 255) - 6, 1]) + literal + bytes([0, 2, 1, 0]) + bytes([0, 0])
    return bmp((width, height), bits, compression, palette, row * height + b"\0\1")


def tiffs(size: tuple[int, int]) -> Iterator[bytes]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "I;16"):
        yield encoded(drawing(size, mode), "TIFF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"):
        yield encoded(drawing(size), "TIFF", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        yield encoded(drawing(size, "1"), "TIFF", compression=compression)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274], tags[278], tags[270] = 6, 4, "description"
    yield encoded(
        drawing(size), "TIFF", tiffinfo=tags, compression="tiff_lzw", icc_profile=profile()
    )
    tags[317] = 2
    yield encoded(drawing(size), "TIFF", tiffinfo=tags, compression="tiff_adobe_deflate")
    yield encoded(drawing(size), "TIFF", big_tiff=True)
    yield encoded(drawing(size), "TIFF", save_all=True, append_images=[drawing(size)])
    for order in "<>":
        yield tiled_tiff(order)


def tiled_tiff(order: str, tile: int = 16, compression: int = 8) -> bytes:
    """Return a TIFF of 32 × 32 grey pixels in four tiles, which Pillow does not write."""
    data = zlib.compress(bytes(range(tile)) * tile) if compression == 8 else bytes(tile * tile)
    entries = (
        (256, 4, (32,)), (257, 4, (32,)), (258, 3, (8,)), (259, 3, (compression,)), (262, 3, (1,)),
        (277, 3, (1,)), (322, 4, (tile,)), (323, 4, (tile,)), (324, 4, (8,) * 4),
        (325, 4, (len(data),) * 4),
    )  # fmt: skip
    extra_at = 8 + len(data) + 2 + 12 * len(entries) + 4
    directory, extra = struct.pack(order + "H", len(entries)), b""
    for tag, kind, values in entries:
        packed = b"".join(
            struct.pack(order + ("I" if kind == 4 else "H"), value) for value in values
        )
        if len(packed) > 4:
            extra += packed
            packed = struct.pack(order + "I", extra_at + len(extra) - len(packed))
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    signature = b"II*\0" if order == "<" else b"MM\0*"
    return signature + struct.pack(order + "I", 8 + len(data)) + data + directory + bytes(4) + extra


def avifs(size: tuple[int, int]) -> Iterator[bytes]:
    for mode, subsampling in (
        ("RGB", "4:2:0"),
        ("RGB", "4:4:4"),
        ("RGBA", "4:2:2"),
        ("L", "4:0:0"),
    ):
        image = drawing(size, mode).convert("RGBA" if mode == "RGBA" else "RGB")
        yield encoded(image, "AVIF", subsampling=subsampling, speed=10, quality=40)
    yield encoded(drawing(size), "AVIF", exif=exif(5), xmp=b"<x/>", icc_profile=profile(), speed=10)
    yield encoded(drawing(size), "AVIF", save_all=True, append_images=[drawing(size)], speed=10)


MAKERS = {
    "jpeg": jpegs,
    "png": pngs,
    "webp": webps,
    "gif": gifs,
    "bmp": bmps,
    "tiff": tiffs,
    "avif": avifs,
}


def seeds() -> dict[str, list[bytes]]:
    """Return small valid pictures by format."""
    return {
        name: [content for size in SIZES for content in make(size)] for name, make in MAKERS.items()
    }


__all__ = ["MAKERS", "PNG_SIGNATURE", "SIZES", "seeds"]
