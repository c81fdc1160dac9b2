"""Preprocessing of regions to model inputs."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.pictures.picture import Picture
from imagesearch_services.embedding.pictures.picture_file import PictureFile
from imagesearch_services.embedding.pictures.preprocess import (
    LETTERBOX_COLOR,
    InputSpec,
    Resize,
    harmless_reduction,
    preprocess,
)
from tests.pictures import encoded, photo

SQUASH = InputSpec(288, 288, Resize.SQUASH)
LETTERBOX = InputSpec(260, 260, Resize.LETTERBOX)


def picture(image: Image.Image) -> Picture:
    return Picture(image, image.width, image.height)


def test_squashing_the_whole_picture_is_an_antialiased_resize() -> None:
    image = photo(1, (640, 480))
    found = preprocess(picture(image), [Box(0, 0, 640, 480)], SQUASH)
    assert found.shape == (1, 288, 288, 3)
    assert found.dtype == np.uint8
    expected = np.asarray(image.resize((288, 288), Image.Resampling.BILINEAR))
    assert np.array_equal(found[0], expected)


def test_a_region_is_cropped_before_it_is_resized() -> None:
    image = photo(2, (640, 480))
    image.paste("red", (100, 50, 300, 250))
    red = preprocess(picture(image), [Box(100, 50, 300, 250)], SQUASH)[0]
    assert (red == (255, 0, 0)).all()


def test_regions_keep_their_order() -> None:
    image = Image.new("RGB", (200, 100), "red")
    image.paste("blue", (100, 0, 200, 100))
    boxes = [Box(100, 0, 200, 100), Box(0, 0, 100, 100)]
    blue, red = preprocess(picture(image), boxes, LETTERBOX)
    assert blue[130, 130].tolist() == [0, 0, 255]
    assert red[130, 130].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(400, 200), (200, 400), (400, 16), (16, 30_000)])
def test_letterbox_keeps_the_aspect_ratio_and_fills_the_rest(size: tuple[int, int]) -> None:
    framed = preprocess(picture(Image.new("RGB", size, "red")), [Box(0, 0, *size)], LETTERBOX)[0]
    red = (framed == (255, 0, 0)).all(axis=2)
    fill = (framed == LETTERBOX_COLOR).all(axis=2)
    assert (red | fill).all()
    factor = 260 / max(size)
    assert red.sum() == max(1, round(size[0] * factor)) * max(1, round(size[1] * factor))
    rows, columns = np.nonzero(red)
    assert abs(rows.min() - (259 - rows.max())) <= 1
    assert abs(columns.min() - (259 - columns.max())) <= 1


@pytest.mark.parametrize("spec", [SQUASH, LETTERBOX])
@pytest.mark.parametrize("box", [Box(0, 0, 1, 1), Box(638.5, 0, 639.6, 480), Box(0, 0, 640, 1)])
def test_the_smallest_regions_can_be_resized(spec: InputSpec, box: Box) -> None:
    assert preprocess(picture(photo(3, (640, 480))), [box], spec).shape == (
        1,
        spec.height,
        spec.width,
        3,
    )


def test_a_region_has_the_same_input_if_the_picture_was_decoded_at_a_reduction() -> None:
    file = encoded(photo(4, (3200, 2400)), quality=95)
    box = Box(801, 403, 2403, 2001)
    whole, reduced = (PictureFile(file).decode(reduction) for reduction in (1, 2))
    assert reduced.image.width == 1600
    expected, found = (
        preprocess(source, [box], SQUASH)[0].astype(int) for source in (whole, reduced)
    )
    assert np.abs(expected - found).mean() < 2


def test_fine_patterns_do_not_alias() -> None:
    stripes = np.zeros((2000, 2000, 3), np.uint8)
    stripes[:, ::2] = 255
    found = preprocess(picture(Image.fromarray(stripes)), [Box(0, 0, 2000, 2000)], SQUASH)[0]
    assert np.abs(found.astype(int) - 127).max() < 16


def test_the_reduction_keeps_each_region_at_twice_the_models_sides() -> None:
    whole = [Box(0, 0, 4000, 3000)]
    assert harmless_reduction(4000, 3000, [], [SQUASH]) == pytest.approx(3000 / 576)
    assert harmless_reduction(4000, 3000, whole, [SQUASH, LETTERBOX]) == pytest.approx(3000 / 576)
    small = Box(0, 0, 600, 1200)
    assert harmless_reduction(4000, 3000, [*whole, small], [SQUASH]) == pytest.approx(600 / 576)
    assert harmless_reduction(640, 480, [], [SQUASH]) == 1
