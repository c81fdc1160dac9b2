"""Encoded drawings, decoded with Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from imagesearch_services.embedding.drawing.encoding import MEDIA_TYPES, encode
from tests.pictures import photo


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@pytest.mark.parametrize("size", [(1, 1), (3, 700), (641, 5), (333, 250), (1500, 1300)])
def test_every_format_preserves_the_picture(media_type: str, size: tuple[int, int]) -> None:
    pixels = np.asarray(photo(1, size))
    with Image.open(io.BytesIO(encode(pixels, media_type))) as image:
        assert image.get_format_mimetype() == media_type
        assert image.mode == "RGB"
        decoded = np.asarray(image)
    assert decoded.shape == pixels.shape
    difference = np.abs(decoded.astype(int) - pixels).mean()
    assert difference == 0 if media_type == "image/png" else difference < 16


def test_a_non_contiguous_array_is_encoded() -> None:
    view = np.asarray(photo(2, (200, 100)))[10:90:2, 150:20:-1]
    with Image.open(io.BytesIO(encode(view, "image/png"))) as image:
        assert np.array_equal(np.asarray(image), view)
