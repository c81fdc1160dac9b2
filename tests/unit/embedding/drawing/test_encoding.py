"""Files of drawings, read back by somebody else."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from imagesearch_services.embedding.drawing.encoding import MEDIA_TYPES, encode
from tests.pictures import photo


@pytest.mark.parametrize("media_type", MEDIA_TYPES)
@pytest.mark.parametrize("size", [(1, 1), (3, 700), (641, 5), (333, 250), (1500, 1300)])
def test_every_format_holds_the_picture(media_type: str, size: tuple[int, int]) -> None:
    pixels = np.asarray(photo(1, size))
    with Image.open(io.BytesIO(encode(pixels, media_type))) as read:
        assert read.get_format_mimetype() == media_type
        assert read.mode == "RGB"
        again = np.asarray(read)
    assert again.shape == pixels.shape
    difference = np.abs(again.astype(int) - pixels).mean()
    assert difference == 0 if media_type == "image/png" else difference < 16


def test_a_part_of_a_picture_is_written_like_any_other() -> None:
    part = np.asarray(photo(2, (200, 100)))[10:90:2, 150:20:-1]
    with Image.open(io.BytesIO(encode(part, "image/png"))) as read:
        assert np.array_equal(np.asarray(read), part)
