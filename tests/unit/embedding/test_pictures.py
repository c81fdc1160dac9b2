"""Decoding of all formats, modes and orientations, and refusal of invalid files."""

from __future__ import annotations

import hashlib
import io
import struct
import time
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.pictures.description import describe_file, sharpness
from imagesearch_services.embedding.pictures.picture_file import PictureFile
from tests.pictures import encoded, photo, png_header

SIZE = (96, 64)

FORMATS = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
}


def quadrants(size: tuple[int, int] = SIZE) -> Image.Image:
    """Return red, green, blue and white quadrants, which reveal any rotation or flip."""
    picture = Image.new("RGB", size, "white")
    width, height = size
    picture.paste("red", (0, 0, width // 2, height // 2))
    picture.paste((0, 255, 0), (width // 2, 0, width, height // 2))
    picture.paste("blue", (0, height // 2, width // 2, height))
    return picture


def pixels(content: bytes) -> np.ndarray[Any, np.dtype[np.int16]]:
    image = PictureFile(content).decode().image
    assert image.mode == "RGB"
    return np.asarray(image).astype(np.int16)


def refusal(content: bytes) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        PictureFile(content).decode()
    return caught.value


def assert_looks_like(content: bytes, expected: Image.Image, tolerance: float = 6.0) -> None:
    found = pixels(content)
    expected_pixels = np.asarray(expected.convert("RGB")).astype(np.int16)
    assert found.shape == expected_pixels.shape
    assert np.abs(found - expected_pixels).mean() < tolerance


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_decoded_and_described(name: str) -> None:
    content = encoded(quadrants(), name)
    file = PictureFile(content)
    picture = file.decode()
    info = describe_file(content, file.media_type, picture)
    assert_looks_like(content, quadrants())
    assert (info.width, info.height) == SIZE
    assert info.media_type == FORMATS[name]
    assert info.size_bytes == len(content)
    assert info.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("JPEG", {"progressive": True}),
        ("PNG", {"interlace": True}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"big_tiff": True}),
    ],
)
def test_variants_of_a_format_are_read(name: str, options: dict[str, Any]) -> None:
    assert_looks_like(encoded(quadrants(), name, **options), quadrants())


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("1", "PNG"),
        ("1", "TIFF"),
        ("1", "BMP"),
        ("L", "JPEG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("LA", "TIFF"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("P", "BMP"),
        ("P", "TIFF"),
        ("RGBA", "PNG"),
        ("RGBA", "WEBP"),
        ("RGBA", "AVIF"),
        ("RGBA", "TIFF"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("YCbCr", "TIFF"),
        ("YCbCr", "JPEG"),
    ],
)
def test_each_mode_is_converted_to_rgb(mode: str, name: str) -> None:
    stored = quadrants().convert(mode)
    assert_looks_like(encoded(stored, name), stored)


def test_lab_is_converted_to_rgb() -> None:
    assert_looks_like(encoded(quadrants().convert("LAB"), "TIFF"), quadrants(), tolerance=8)


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_scale(name: str) -> None:
    levels = np.linspace(0, 65535, 96 * 64).astype(np.uint16).reshape(64, 96)
    found = pixels(encoded(Image.fromarray(levels), name))
    assert np.abs(found[..., 0] - (levels >> 8)).max() <= 1


@pytest.mark.parametrize("top", [255, 65535, 2**31 - 1])
def test_thirty_two_bit_grey_is_scaled_by_its_range(top: int) -> None:
    levels = np.linspace(0, top, 96 * 64).astype(np.int32).reshape(64, 96)
    found = pixels(encoded(Image.fromarray(levels), "TIFF"))
    assert np.abs(found[..., 0] - levels / top * 255).max() <= 1


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 255.0), (-3.0, 7.5), (0.0, 1e30)])
def test_float_grey_is_scaled_by_its_range(low: float, high: float) -> None:
    levels = np.linspace(low, high, 96 * 64, dtype=np.float32).reshape(64, 96)
    found = pixels(encoded(Image.fromarray(levels), "TIFF"))
    assert np.abs(found[..., 0] - (levels - low) / (high - low) * 255).max() <= 1


def test_float_grey_with_nan_and_infinity_is_decoded() -> None:
    levels = np.full((64, 96), np.nan, dtype=np.float32)
    levels[0, 0] = np.inf
    assert pixels(encoded(Image.fromarray(levels), "TIFF")).max() == 0


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "AVIF"])
def test_alpha_is_composited_over_white(name: str) -> None:
    clear = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    clear.paste((255, 0, 0, 128), (0, 0, 48, 64))
    found = pixels(encoded(clear, name))
    assert np.abs(found[:, 60:] - 255).max() <= 2
    assert np.abs(found[:, :40] - (255, 127, 127)).max() <= 4


def test_a_transparent_palette_entry_is_white() -> None:
    palette = quadrants().convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    red = palette.getpixel((0, 0))
    for name in ("PNG", "GIF"):
        found = pixels(encoded(palette, name, transparency=red))
        assert found[10, 10].tolist() == [255, 255, 255]
        assert found[10, 80].tolist() == [0, 255, 0]


def test_a_palette_with_partial_alpha_is_composited_over_white() -> None:
    palette = Image.new("P", SIZE, 0)
    palette.putpalette([0, 0, 0])
    found = pixels(encoded(palette, "PNG", transparency=b"\x80"))
    assert found[0, 0].tolist() == [127, 127, 127]


@pytest.mark.parametrize(("mode", "level"), [("L", 7), ("RGB", (7, 8, 9)), ("I;16", 7 << 8)])
def test_a_transparent_color_is_white(mode: str, level: Any) -> None:
    if mode == "I;16":
        stored = Image.fromarray(np.full((64, 96), level, np.uint16))
    else:
        stored = Image.new(mode, SIZE, level)
    found = pixels(encoded(stored, "PNG", transparency=level))
    assert found.min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_picture_is_rotated_by_its_exif_orientation(name: str, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = quadrants()
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(stored, name, exif=exif)
    picture = PictureFile(content).decode()
    assert (picture.width, picture.height) == SIZE
    assert_looks_like(content, quadrants())


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*", b""])
def test_damaged_exif_is_ignored(exif: bytes) -> None:
    assert_looks_like(encoded(quadrants(), "JPEG", exif=exif), quadrants())


def test_an_orientation_out_of_range_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    assert_looks_like(encoded(quadrants(), "JPEG", exif=exif), quadrants())


@pytest.mark.parametrize("name", ["GIF", "WEBP", "TIFF", "PNG", "AVIF"])
def test_the_first_of_several_frames_is_decoded(name: str) -> None:
    others = [Image.new("RGB", SIZE, shade) for shade in ("black", "navy", "maroon")]
    content = encoded(quadrants(), name, save_all=True, append_images=others)
    assert_looks_like(content, quadrants())


def test_the_first_picture_of_a_multi_picture_jpeg_is_decoded() -> None:
    content = encoded(
        quadrants(), "MPO", save_all=True, append_images=[Image.new("RGB", SIZE, "black")]
    )
    assert PictureFile(content).media_type == "image/jpeg"
    assert_looks_like(content, quadrants())


@pytest.mark.parametrize(
    "content",
    [
        b"just some words, and then some more of them",
        b"\0" * 1000,
        b"\xff",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7 and so on",
        b"\x89PNG\r\n\x1a\n" + b"garbage" * 100 + b"IEND",
        b"\xff\xd8\xff\xe0\x00\x10" + bytes(range(256)) * 8 + b"\xff\xd9",
        b"GIF89a" + b"\xff" * 500 + b";",
        b"BM" + b"\0" * 300,
        b"II*\0\x08\0\0\0" + b"\xff" * 300,
        b"II+\0\x08\0\0\0" + b"\xff" * 8,
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100,
    ],
)
def test_a_file_that_is_not_a_picture_is_unreadable(content: bytes) -> None:
    assert refusal(content).reason is Reason.IMAGE_UNREADABLE


def test_an_archive_is_unreadable() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("picture.jpg", encoded(quadrants()))
    error = refusal(buffer.getvalue())
    assert error.reason is Reason.IMAGE_UNREADABLE
    assert "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF" in error.message


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8])
def test_a_cut_off_file_is_reported_as_truncated(name: str, share: float) -> None:
    content = encoded(photo(1, (200, 150)), name)
    assert refusal(content[: int(len(content) * share)]).reason is Reason.IMAGE_TRUNCATED


def test_a_jpeg_cut_off_after_its_thumbnail_is_reported_as_truncated() -> None:
    plain = encoded(photo(1))
    thumbnail = encoded(photo(1, (32, 24)))
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 8) + b"Exif\0\0" + thumbnail
    content = plain[:2] + segment + plain[2:]
    PictureFile(content).decode()
    assert refusal(content[: len(content) // 2]).reason is Reason.IMAGE_TRUNCATED


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_decoded_or_refused_as_an_invalid_image(
    name: str, data: st.DataObject
) -> None:
    content = bytearray(encoded(photo(2, (64, 48)), name))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = PictureFile(bytes(content)).decode()
    except ServiceError as error:
        assert error.reason.startswith("IMAGE_")  # noqa: PT017  # both outcomes are valid
    else:
        assert picture.image.mode == "RGB"


def huge_headers() -> dict[str, bytes]:
    """Return small files whose headers declare a huge picture, by format."""
    gif = bytearray(encoded(quadrants(), "GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    bmp = bytearray(encoded(quadrants(), "BMP"))
    bmp[18:26] = struct.pack("<ii", 100_000, 100_000)
    webp = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + b"\xff\xff\0" * 2 + b"\0" * 8
    jpeg = bytearray(encoded(quadrants(), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65000, 65000)
    tiff = encoded(quadrants(), "TIFF")
    for tag in (256, 257):  # ImageWidth and ImageLength, as SHORT or LONG
        at = tiff.index(struct.pack("<H", tag), 4)
        tiff = tiff[: at + 2] + struct.pack("<HII", 4, 1, 100_000) + tiff[at + 12 :]
    return {
        "png": png_header(100_000, 100_000),
        "gif": bytes(gif),
        "bmp": bytes(bmp),
        "webp": webp,
        "jpeg": bytes(jpeg),
        "tiff": tiff,
    }


@pytest.mark.parametrize("name", huge_headers())
def test_a_decompression_bomb_is_refused_without_decoding(name: str) -> None:
    content = huge_headers()[name]
    tracemalloc.start()
    began_s = time.process_time()
    error = refusal(content)
    took_s = time.process_time() - began_s
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.reason is Reason.IMAGE_TOO_LARGE
    assert error.metadata["unit"] == "pixels"
    assert int(error.metadata["actual"]) > int(error.metadata["limit"])
    assert took_s < 0.1
    assert peak_bytes < 2_000_000


def test_fifty_megapixels_are_allowed_and_one_row_more_is_refused() -> None:
    assert PictureFile(png_header(10_000, 5_000)).pixels == 50_000_000
    error = refusal(png_header(10_000, 5_001))
    assert error.reason is Reason.IMAGE_TOO_LARGE
    assert error.metadata == {"limit": "50000000", "actual": "50010000", "unit": "pixels"}


def test_ten_mebibytes_are_allowed_and_one_byte_more_is_refused() -> None:
    content = encoded(quadrants())
    padded = content + b"\0" * (10 * 1024 * 1024 - len(content))
    assert PictureFile(padded).decode().width == SIZE[0]
    error = refusal(padded + b"\0")
    assert error.reason is Reason.IMAGE_TOO_LARGE
    assert error.metadata == {"limit": "10485760", "actual": "10485761", "unit": "bytes"}


def test_a_side_of_sixteen_pixels_is_allowed_and_of_fifteen_is_refused() -> None:
    assert PictureFile(encoded(quadrants((16, 500)), "PNG")).decode().width == 16
    error = refusal(encoded(quadrants((500, 15)), "PNG"))
    assert error.reason is Reason.IMAGE_TOO_SMALL
    assert error.metadata == {"limit": "16", "actual": "15", "unit": "pixels"}


def test_a_jpeg_with_too_many_scans_is_refused_before_decoding() -> None:
    content = encoded(photo(3), progressive=True)
    scan = content[content.rindex(b"\xff\xda") : -2]
    assert refusal(content[:-2] + scan * 100 + b"\xff\xd9").reason is Reason.IMAGE_TOO_COSTLY


def test_a_tiff_with_a_million_tags_is_refused_quickly() -> None:
    entry = struct.pack("<HHII", 60000, 4, 1, 0)
    tags = 65535
    content = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", tags) + entry * tags
    began_s = time.process_time()
    refusal(content + b"\0" * 4)
    assert time.process_time() - began_s < 5


def tiff_of_strips(count: int, *, big: bool) -> bytes:
    """Return a grey TIFF, 16 pixels wide, with one strip per row, all at offset 0."""
    entry, size = ("<HHQQ", 8) if big else ("<HHII", 4)
    table = 300
    fields = [
        (256, 4, 1, 16),  # ImageWidth
        (257, 4, 1, count),  # ImageLength
        (258, 3, 1, 8),  # BitsPerSample
        (259, 3, 1, 1),  # Compression: none
        (262, 3, 1, 1),  # PhotometricInterpretation: black is zero
        (273, 4, count, table),  # StripOffsets
        (277, 3, 1, 1),  # SamplesPerPixel
        (278, 4, 1, 1),  # RowsPerStrip
    ]
    if big:
        head = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, len(fields))
    else:
        head = b"II*\0" + struct.pack("<IH", 8, len(fields))
    head += b"".join(struct.pack(entry, *field) for field in fields) + b"\0" * size
    return head.ljust(table, b"\0") + b"\0" * (4 * count)


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_with_a_million_strips_is_refused_at_once(big: bool) -> None:
    assert PictureFile(tiff_of_strips(1_000, big=big)).decode().height == 1_000
    began_s = time.process_time()
    error = refusal(tiff_of_strips(1_200_000, big=big))
    assert error.reason is Reason.IMAGE_TOO_COSTLY
    assert time.process_time() - began_s < 0.5


def test_a_large_jpeg_is_decoded_at_a_reduction() -> None:
    content = encoded(photo(4, (1600, 1200)))
    picture = PictureFile(content).decode(reduction=4.7)
    assert picture.image.size == (400, 300)
    assert (picture.width, picture.height) == (1600, 1200)
    assert picture.x_scale == picture.y_scale == 0.25


def test_a_rotated_jpeg_decoded_at_a_reduction_keeps_its_size_as_shown() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = PictureFile(encoded(photo(4, (1600, 1200)), exif=exif)).decode(reduction=2)
    assert picture.image.size == (600, 800)
    assert (picture.width, picture.height) == (1200, 1600)


def test_other_formats_are_decoded_at_full_size() -> None:
    picture = PictureFile(encoded(photo(4), "PNG")).decode(reduction=8)
    assert picture.image.size == (picture.width, picture.height)


def test_blur_lowers_sharpness() -> None:
    sharp = photo(5, (640, 480))
    values = [sharpness(sharp.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 2 * values[-1]


def test_sharpness_is_the_variance_of_the_laplacian_at_512_pixels() -> None:
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (384, 512), dtype=np.uint8)
    kernel = ((1, 0), (-1, 0), (0, 1), (0, -1))
    levels = grey.astype(float)
    laplacian = sum(np.roll(levels, shift, (0, 1)) for shift in kernel) - 4 * levels
    assert sharpness(Image.fromarray(grey)) == pytest.approx(laplacian[1:-1, 1:-1].var())


@pytest.mark.parametrize("size", [(16, 20_000), (20_000, 16), (16, 16)])
def test_sharpness_is_finite_for_any_shape(size: tuple[int, int]) -> None:
    assert sharpness(Image.new("RGB", size, "grey")) == 0.0
