"""Thumbnails: size, orientation, transparency and metadata."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from imagesearch_services.embedding.pictures.picture_file import PictureFile
from imagesearch_services.embedding.pictures.thumbnails import thumbnail
from tests.pictures import encoded, photo

SECRET = b"somewhere in the garden"


def decoded_thumbnail(content: bytes, max_side_px: int = 320) -> Image.Image:
    file = thumbnail(PictureFile(content).decode().image, max_side_px)
    picture = Image.open(io.BytesIO(file))
    assert picture.format == "JPEG"
    return picture


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (320, 240)),
        ((480, 640), (240, 320)),
        ((1000, 999), (320, 320)),
        ((320, 200), (320, 200)),
        ((40, 30), (40, 30)),
        ((9000, 16), (320, 1)),
    ],
)
def test_a_thumbnail_is_reduced_and_never_enlarged(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert decoded_thumbnail(encoded(photo(1).resize(size), "PNG")).size == expected


def test_a_thumbnail_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90 degrees clockwise
    picture = Image.new("RGB", (400, 200), "red")
    picture.paste("blue", (200, 0, 400, 200))
    small = decoded_thumbnail(encoded(picture, "JPEG", exif=exif, quality=95))
    assert small.size == (160, 320)
    assert small.getpixel((80, 40)) == pytest.approx((254, 0, 0), abs=8)
    assert small.getpixel((80, 280)) == pytest.approx((0, 0, 254), abs=8)


def test_transparency_is_composited_over_white() -> None:
    clear = Image.new("RGBA", (64, 64), (200, 0, 0, 0))
    assert np.asarray(decoded_thumbnail(encoded(clear, "PNG"))).min() > 250


def test_a_thumbnail_has_no_metadata_of_the_file() -> None:
    exif = Image.Exif()
    exif[0x010E] = SECRET.decode()
    content = encoded(
        photo(2), "JPEG", exif=exif, comment=SECRET, icc_profile=SECRET * 10, dpi=(300, 300)
    )
    assert content.count(SECRET) >= 3
    file = thumbnail(PictureFile(content).decode().image, 320)
    assert SECRET not in file
    small = Image.open(io.BytesIO(file))
    assert not small.getexif()
    assert set(small.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_a_thumbnail_resembles_the_picture() -> None:
    original = photo(0, (640, 480))
    small = np.asarray(decoded_thumbnail(encoded(original, "PNG"))).astype(float)
    expected = np.asarray(original.resize((320, 240), Image.Resampling.BOX)).astype(float)
    assert np.abs(small - expected).mean() < 4
