"""Subjects found in the parser's maps, their colors, and the labels of a product model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from imagesearch_services.common.types import Box, Category
from imagesearch_services.embedding.pictures.picture import Picture
from imagesearch_services.embedding.pictures.preprocess import InputSpec, Resize, letterboxed
from imagesearch_services.embedding.subjects.clothing import find_garments
from imagesearch_services.embedding.subjects.colors import (
    PROTOTYPES,
    illuminant_gains,
    name_colors,
)
from imagesearch_services.embedding.subjects.finding import (
    box_colors,
    find_subjects,
    second_pass_boxes,
    subject_colors,
)
from imagesearch_services.embedding.subjects.labels import Labels
from imagesearch_services.embedding.subjects.plain_background import foreground_box, foreground_mask
from tests.goods import BOX, RED, SIZE, blank_picture, carton

SPEC = InputSpec(352, 512, Resize.LETTERBOX)
STRIDE = 8
CELLS = (64, 44)
BACKGROUND, PERSON, TOPS, BOTTOMS, SALIENCY = 0, 1, 2, 5, 9
PLAIN = {
    "black": (18, 18, 20),
    "grey": (120, 120, 121),
    "white": (245, 245, 243),
    "red": (200, 25, 35),
    "orange": (240, 125, 30),
    "yellow": (248, 215, 50),
    "green": (50, 140, 60),
    "blue": (35, 85, 190),
    "purple": (120, 60, 150),
    "pink": (245, 165, 185),
    "brown": (110, 70, 42),
    "beige": (222, 202, 170),
}
Floats = npt.NDArray[np.float32]


def picture(image: Image.Image) -> Picture:
    return Picture(image, *image.size)


def maps(*boxes: tuple[int, tuple[float, float, float, float]], size: tuple[int, int]) -> Floats:
    """Return the parser's maps of a picture in which classes fill boxes, given in pixels."""
    found = np.zeros((10, *CELLS), np.float32)
    found[BACKGROUND] = 1.0
    left, top, width, height = letterboxed(Box(0, 0, *size), SPEC)
    for index, (x_min, y_min, x_max, y_max) in boxes:
        rows = slice(
            round((top + y_min / size[1] * height) / STRIDE),
            round((top + y_max / size[1] * height) / STRIDE),
        )
        columns = slice(
            round((left + x_min / size[0] * width) / STRIDE),
            round((left + x_max / size[0] * width) / STRIDE),
        )
        if index != SALIENCY:
            found[:9, rows, columns] = 0.0
        found[index, rows, columns] = 0.9
    return found


def overlap(a: Box, b: tuple[float, float, float, float]) -> float:
    width = min(a.x_max, b[2]) - max(a.x_min, b[0])
    height = min(a.y_max, b[3]) - max(a.y_min, b[1])
    common = max(0.0, width) * max(0.0, height)
    return common / (a.width * a.height + (b[2] - b[0]) * (b[3] - b[1]) - common)


def whole(image: Image.Image) -> Box:
    return Box(0, 0, *image.size)


def test_garments_are_found_in_the_maps_largest_first() -> None:
    image = Image.new("RGB", (430, 640), "#777777")
    shirt, trousers = (130, 60, 300, 220), (140, 240, 290, 600)
    found = find_subjects(
        picture(image),
        whole(image),
        maps((TOPS, shirt), (BOTTOMS, trousers), size=image.size),
        SPEC,
        STRIDE,
    )
    assert [subject.garment_category for subject in found] == [Category.BOTTOMS, Category.TOPS]
    assert overlap(found[0].box, trousers) > 0.8
    assert overlap(found[1].box, shirt) > 0.8
    assert all(0.6 < subject.score <= 1 for subject in found)


def test_boxes_of_subjects_in_a_region_are_pixels_of_the_picture() -> None:
    image = Image.new("RGB", (430, 640), "#777777")
    region = Box(100, 200, 400, 620)
    inside = (60.0, 90.0, 210.0, 330.0)
    found = find_subjects(
        picture(image), region, maps((BOTTOMS, inside), size=(300, 420)), SPEC, STRIDE
    )
    assert overlap(found[0].box, (160, 290, 310, 530)) > 0.8


def test_an_object_on_a_plain_background_has_a_tight_box() -> None:
    image = carton(RED, "cola")
    (found,) = find_subjects(picture(image), whole(image), maps(size=SIZE), SPEC, STRIDE)
    assert found.garment_category is None
    assert overlap(found.box, BOX) > 0.95


def test_an_object_on_a_busy_background_is_found_by_the_saliency_map() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (360, 480, 3), np.uint8)
    image = Image.fromarray(noise)
    thing = (200.0, 90.0, 420.0, 300.0)
    (found,) = find_subjects(
        picture(image), whole(image), maps((SALIENCY, thing), size=SIZE), SPEC, STRIDE
    )
    assert found.garment_category is None
    assert overlap(found.box, thing) > 0.8
    assert found.score == pytest.approx(0.9, abs=0.1)


def test_a_picture_without_foreground_has_no_subjects() -> None:
    image = blank_picture()
    assert find_subjects(picture(image), whole(image), maps(size=SIZE), SPEC, STRIDE) == []


def test_a_mark_on_a_package_is_not_a_garment() -> None:
    image = carton(RED, "cola")
    mark = (220.0, 180.0, 270.0, 220.0)
    (found,) = find_subjects(
        picture(image), whole(image), maps((TOPS, mark), size=SIZE), SPEC, STRIDE
    )
    assert found.garment_category is None
    assert overlap(found.box, BOX) > 0.95


def test_fur_with_a_tiny_garment_is_not_a_dressed_person() -> None:
    image = carton("#c8a48c", "")
    paw = (300.0, 280.0, 320.0, 296.0)
    (found,) = find_subjects(
        picture(image), whole(image), maps((PERSON, BOX), (TOPS, paw), size=SIZE), SPEC, STRIDE
    )
    assert found.garment_category is None


def test_a_small_garment_on_a_person_is_found() -> None:
    image = carton("#c8a48c", "")
    hat = (200.0, 75.0, 290.0, 130.0)
    (found,) = find_subjects(
        picture(image), whole(image), maps((PERSON, BOX), (TOPS, hat), size=SIZE), SPEC, STRIDE
    )
    assert found.garment_category == Category.TOPS


@pytest.mark.parametrize("size", [(16, 16), (2000, 16), (16, 2000), (1, 1)])
def test_regions_of_extreme_shapes_have_no_subjects(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "#3060a0")
    found = find_subjects(picture(image), whole(image), maps(size=size), SPEC, STRIDE)
    assert found == []
    box_colors(picture(image), whole(image))


@pytest.mark.parametrize("name", PROTOTYPES)
def test_uniform_colors_are_named(name: str) -> None:
    flat = np.full((40, 40, 3), PLAIN[name], np.uint8)
    (color,) = name_colors(flat, np.ones((40, 40), np.bool_))
    assert color.name == name
    assert color.hex == "#{:02x}{:02x}{:02x}".format(*PLAIN[name])
    assert color.share == pytest.approx(1.0)


def test_white_under_warm_light_is_named_white() -> None:
    """The illuminant is compensated for the name; `hex` stays the color of the pixels."""
    warm = np.full((60, 60, 3), (236, 222, 200), np.uint8)
    warm[30:] = (70, 50, 40)
    shirt = np.zeros((60, 60), np.bool_)
    shirt[:30] = True
    (balanced,) = name_colors(warm, shirt, illuminant_gains(warm))
    assert balanced.name == "white"
    assert balanced.hex == "#ecdec8"
    (unbalanced,) = name_colors(warm, shirt)
    assert unbalanced.name == "beige"


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (64, 64)])
def test_a_saturated_picture_has_neutral_gains(size: tuple[int, int]) -> None:
    flat = np.full((*size, 3), (200, 30, 40), np.uint8)
    np.testing.assert_allclose(illuminant_gains(flat), 1.0)


def test_black_pictures_have_finite_gains() -> None:
    assert np.isfinite(illuminant_gains(np.zeros((20, 20, 3), np.uint8))).all()


def test_colors_inside_the_mask_are_named_largest_first() -> None:
    pixels = np.zeros((90, 90, 3), np.uint8)
    pixels[:, :60] = (200, 25, 35)
    pixels[:, 60:80] = (35, 85, 190)
    mask = np.ones((90, 90), np.bool_)
    mask[:, 80:] = False
    named = name_colors(pixels, mask)
    assert [color.name for color in named] == ["red", "blue"]
    assert named[0].share == pytest.approx(0.75, abs=0.03)


def test_the_colors_of_a_subject_exclude_the_background() -> None:
    image = carton(RED, "cola", background="#e8f0e8")
    (found,) = find_subjects(picture(image), whole(image), maps(size=SIZE), SPEC, STRIDE)
    assert subject_colors(picture(image), found)[0].name == "red"
    assert box_colors(picture(image), whole(image))[0].name == "red"


def test_a_box_inside_an_object_has_the_color_of_the_object() -> None:
    image = carton(RED, "cola")
    inner = Box(BOX[0] + 4, BOX[1] + 4, BOX[2] - 4, BOX[3] - 4)
    assert box_colors(picture(image), inner)[0].name == "red"


def test_a_patterned_border_has_no_foreground_mask() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (300, 200, 3), np.uint8)
    assert foreground_mask(noise) is None
    assert foreground_box(noise) is None


def test_noise_has_few_garments() -> None:
    noise = np.random.default_rng(2).dirichlet(np.ones(9), CELLS).transpose(2, 0, 1)
    assert len(find_garments(noise.astype(np.float32), (0.6,) * 6)) <= 6


LABELS = Labels.from_parameters(
    {
        "attributes": "kind=dress,pants,t-shirt,hat;sleeve_length=short,long",
        "category_of_kind": "DRESS,BOTTOMS,TOPS,ACCESSORIES",
        "sleeved_kinds": "t-shirt",
        "categories": "TOPS,DRESS,BOTTOMS,BAG,ACCESSORIES,BOTTLE,OTHER",
    }
)
TSHIRT = np.array([0.05, 0.1, 0.8, 0.05, 0.9, 0.1], np.float32)
UNSURE = np.array([0.3, 0.3, 0.2, 0.2, 0.5, 0.5], np.float32)
WORN = np.array([0.5, 0.1, 0.1, 0, 0.1, 0.1, 0.1], np.float32)
NOT_GOODS = np.array([0.02, 0.01, 0.01, 0.03, 0.03, 0.05, 0.85], np.float32)
BOTTLE = np.array([0.05, 0, 0, 0.05, 0, 0.7, 0.2], np.float32)


def test_a_single_garment_has_the_category_of_its_kind() -> None:
    classified = LABELS.classify(TSHIRT, WORN, garment_category=Category.DRESS, is_alone=True)
    assert classified.category == Category.TOPS
    assert [(attribute.name, attribute.value) for attribute in classified.attributes] == [
        ("kind", "t-shirt"),
        ("sleeve_length", "short"),
    ]


def test_a_garment_of_an_outfit_keeps_the_parsers_category() -> None:
    classified = LABELS.classify(TSHIRT, WORN, garment_category=Category.BOTTOMS, is_alone=False)
    assert (classified.category, classified.attributes) == (Category.BOTTOMS, ())


def test_a_bag_keeps_the_parsers_category() -> None:
    classified = LABELS.classify(TSHIRT, WORN, garment_category=Category.BAG, is_alone=True)
    assert (classified.category, classified.attributes) == (Category.BAG, ())


def test_uncertain_attributes_are_not_returned() -> None:
    assert LABELS.classify(UNSURE, WORN, garment_category=Category.TOPS).attributes == ()


def test_other_goods_have_the_likeliest_category() -> None:
    classified = LABELS.classify(TSHIRT, BOTTLE)
    assert (classified.category, classified.attributes) == (Category.BOTTLE, ())
    assert classified.score == pytest.approx(0.7 / 0.8)


def test_a_crop_that_resembles_no_goods_is_other() -> None:
    classified = LABELS.classify(TSHIRT, NOT_GOODS)
    assert (classified.category, classified.attributes) == (Category.OTHER, ())
    assert classified.score == pytest.approx(0.85)


def test_a_crop_without_a_parsed_garment_may_be_clothing() -> None:
    classified = LABELS.classify(TSHIRT, WORN)
    assert classified.category == Category.TOPS
    assert classified.attributes


def test_an_unknown_category_is_refused() -> None:
    parameters = {
        "attributes": "kind=dress",
        "category_of_kind": "DRESS",
        "sleeved_kinds": "",
        "categories": "DRESS,HATS",
    }
    with pytest.raises(ValueError, match="HATS"):
        Labels.from_parameters(parameters)


def test_inconsistent_labels_are_refused() -> None:
    parameters = {
        "attributes": "kind=dress,pants",
        "category_of_kind": "DRESS",
        "sleeved_kinds": "",
        "categories": "DRESS",
    }
    with pytest.raises(ValueError, match="shorter"):
        Labels.from_parameters(parameters)
    with pytest.raises(KeyError):
        replace(LABELS, attributes={}).classify(TSHIRT, WORN)


def test_only_a_person_gets_a_second_pass() -> None:
    image = Image.new("RGB", (430, 640), "#777777")
    without_person = maps((TOPS, (130, 60, 300, 220)), size=image.size)
    assert second_pass_boxes(whole(image), without_person, SPEC, STRIDE) == []
    with_person = maps((TOPS, (130, 100, 300, 220)), (PERSON, (170, 20, 260, 100)), size=image.size)
    upper, lower = second_pass_boxes(whole(image), with_person, SPEC, STRIDE)
    assert upper.y_min < 20
    assert upper.y_max > lower.y_min
    assert lower.y_max > 220


def test_a_bag_that_only_the_second_pass_detects_is_found() -> None:
    image = Image.new("RGB", (430, 640), "#777777")
    shirt, bag = (130, 60, 300, 220), (150, 400, 260, 520)
    first = maps((TOPS, shirt), size=image.size)
    first[:2, 30:58, 14:30] = 0.45
    lower = Box(100, 300, 330, 640)
    second = np.zeros((10, *CELLS), np.float32)
    second[BACKGROUND] = 1.0
    left, top, width, height = letterboxed(lower, SPEC)
    rows = slice(
        round((top + (bag[1] - 300) / 340 * height) / STRIDE),
        round((top + (bag[3] - 300) / 340 * height) / STRIDE),
    )
    columns = slice(
        round((left + (bag[0] - 100) / 230 * width) / STRIDE),
        round((left + (bag[2] - 100) / 230 * width) / STRIDE),
    )
    second[:9, rows, columns] = 0.0
    second[7, rows, columns] = 1.0
    both = find_subjects(
        picture(image), whole(image), first, SPEC, STRIDE, second_pass=[(lower, second)] * 8
    )
    assert {subject.garment_category for subject in both} == {Category.TOPS, Category.BAG}
    (found,) = (subject for subject in both if subject.garment_category == Category.BAG)
    assert overlap(found.box, bag) > 0.8
