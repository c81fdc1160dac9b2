"""Alignment, measures, edits and overlay of two pictures, without models."""

from __future__ import annotations

import io
import math

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from imagesearch_services.embedding.comparison.alignment import Aligned, align
from imagesearch_services.embedding.comparison.displacement import displacement_px
from imagesearch_services.embedding.comparison.edit import Edit
from imagesearch_services.embedding.comparison.edits import Motion, likely_edits
from imagesearch_services.embedding.comparison.measures import (
    hash_measures,
    pixel_measures,
    psnr_db,
    ssim,
)
from imagesearch_services.embedding.comparison.overlay import draw_overlay
from imagesearch_services.embedding.comparison.view import Pixels, View
from tests.pictures import photo

PHOTO = photo(1, (360, 270))


def view(picture: Image.Image) -> View:
    return View.of(np.asarray(picture.convert("RGB")))


def aligned(first: Image.Image, second: Image.Image) -> Aligned:
    found = align(view(first), view(second))
    assert found is not None
    return found


def edits(first: Image.Image, second: Image.Image) -> list[Edit]:
    a, b = view(first), view(second)
    found = align(a, b)
    assert found is not None
    return likely_edits(a, b, found, Motion.of(found.matrix, a.size))


def test_a_picture_is_aligned_with_itself_by_the_identity() -> None:
    found = aligned(PHOTO, PHOTO)
    assert found.agreement > 0.99
    assert (found.shown_of_first, found.shown_of_second) == pytest.approx((1, 1), abs=0.01)
    assert not edits(PHOTO, PHOTO)


def test_the_order_of_the_pictures_only_exchanges_the_shown_shares() -> None:
    crop = PHOTO.crop((90, 60, 90 + 180, 60 + 135))
    forward, backward = aligned(PHOTO, crop), aligned(crop, PHOTO)
    assert forward.shown_of_first == pytest.approx(0.25, abs=0.01)
    assert backward.shown_of_second == pytest.approx(forward.shown_of_first, abs=0.01)
    assert forward.matrix @ backward.matrix / (forward.matrix @ backward.matrix)[
        2, 2
    ] == pytest.approx(np.eye(3), abs=2)


def test_a_picture_without_features_is_aligned_by_its_thumbnail() -> None:
    gradient = Image.fromarray(np.tile(np.linspace(0, 255, 200).astype(np.uint8), (150, 1)))
    smooth = gradient.filter(ImageFilter.GaussianBlur(5))
    found = aligned(smooth, smooth.transpose(Image.Transpose.ROTATE_180))
    assert found.inlier_count == 0
    assert found.agreement > 0.95


def test_the_only_edit_of_a_cropped_faint_picture_is_the_crop() -> None:
    faint = Image.blend(Image.new("RGB", PHOTO.size, "beige"), PHOTO, 0.05)
    assert [edit.name for edit in edits(faint, faint.crop((60, 45, 300, 225)))] == ["cropped"]


def with_a_word(picture: Image.Image) -> Image.Image:
    marked = picture.copy()
    ImageDraw.Draw(marked).text((120, 110), "SOLD", "white", ImageFont.load_default(60))
    return marked


def test_a_cover_is_reported_and_changes_no_colors() -> None:
    assert [edit.name for edit in edits(PHOTO, with_a_word(PHOTO))] == ["overlaid"]


def test_a_cover_on_a_blurred_picture_is_reported_and_blur_alone_is_not_a_cover() -> None:
    blurred = PHOTO.filter(ImageFilter.GaussianBlur(3))
    assert [edit.name for edit in edits(PHOTO, blurred)] == ["blurred"]
    assert [edit.name for edit in edits(PHOTO, with_a_word(blurred))] == ["blurred", "overlaid"]


@pytest.mark.parametrize("seed", range(8))
def test_a_re_encoded_picture_has_no_edits(seed: int) -> None:
    picture = photo(seed, (225, 300))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    assert not edits(picture, Image.open(file))


def test_a_uniform_picture_is_not_aligned() -> None:
    assert align(view(Image.new("RGB", (90, 90), "red")), view(PHOTO)) is None


def test_a_bent_copy_agrees_after_refinement() -> None:
    pixels = np.asarray(PHOTO)
    y, x = np.mgrid[:270, :360].astype(np.float32)
    bent = cv2.remap(pixels, x + 7 * np.sin(y / 40), y + 7 * np.sin(x / 50), cv2.INTER_LINEAR)
    found = aligned(PHOTO, Image.fromarray(np.asarray(bent, np.uint8)))
    assert found.agreement > 0.85
    assert found.bend > 0.01


def test_an_edit_causes_no_displacement() -> None:
    original = view(PHOTO)
    edited = view(PHOTO.crop((30, 20, 340, 260)).resize((400, 310)))
    found = align(original, edited)
    assert found is not None
    displacement = displacement_px(original, edited, found)
    assert displacement is not None
    assert displacement < 0.2


def test_parallax_causes_displacement() -> None:
    pixels = np.asarray(PHOTO).copy()
    pixels[80:200, 100:260] = pixels[80:200, 106:266]
    original, moved = view(PHOTO), view(Image.fromarray(pixels))
    found = align(original, moved)
    assert found is not None
    displacement = displacement_px(original, moved, found)
    assert displacement is not None
    assert displacement > 0.6


def test_displacement_is_unknown_without_texture() -> None:
    smooth = view(PHOTO.filter(ImageFilter.GaussianBlur(60)))
    found = align(smooth, smooth)
    assert found is None or displacement_px(smooth, smooth, found) is None


def with_noise(picture: Image.Image) -> Image.Image:
    noise = np.random.default_rng(1).normal(0, 35, np.asarray(picture).shape)
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def skewed(picture: Image.Image) -> Image.Image:
    """Return the picture as if photographed from the side."""
    width, height = picture.size
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    inwards = np.array([(40, 20), (-10, 0), (-80, -60), (60, -20)], np.float32)
    matrix = cv2.getPerspectiveTransform(corners, corners + inwards)
    return Image.fromarray(
        np.asarray(cv2.warpPerspective(np.asarray(picture), matrix, (width, height)), np.uint8)
    )


EDITED = {
    "cropped": PHOTO.crop((40, 40, 240, 200)),
    "flipped_horizontally": ImageOps.mirror(PHOTO),
    "flipped_vertically": ImageOps.flip(PHOTO),
    "rotated": PHOTO.rotate(15, Image.Resampling.BICUBIC, expand=True),
    "scaled": PHOTO.resize((180, 135)),
    "aspect_changed": PHOTO.resize((360, 180)),
    "perspective_changed": skewed(PHOTO),
    "framed": ImageOps.expand(PHOTO, 40, "white"),
    "greyscale": PHOTO.convert("L"),
    "recoloured": Image.merge("RGB", PHOTO.split()[::-1]),
    "brightness_changed": PHOTO.point(lambda level: level * 0.5),
    "blurred": PHOTO.filter(ImageFilter.GaussianBlur(3)),
    "noisy": with_noise(PHOTO),
}


@pytest.mark.parametrize("name", EDITED)
def test_each_edit_is_reported(name: str) -> None:
    assert name in {edit.name for edit in edits(PHOTO, EDITED[name])}


@pytest.mark.parametrize(
    ("transpose", "expected"),
    [
        (Image.Transpose.ROTATE_90, [Edit("rotated", 270)]),
        (Image.Transpose.ROTATE_180, [Edit("rotated", 180)]),
        (Image.Transpose.ROTATE_270, [Edit("rotated", 90)]),
        (Image.Transpose.FLIP_LEFT_RIGHT, [Edit("flipped_horizontally")]),
        (Image.Transpose.FLIP_TOP_BOTTOM, [Edit("flipped_vertically")]),
        (Image.Transpose.TRANSPOSE, [Edit("flipped_horizontally"), Edit("rotated", 270)]),
        (Image.Transpose.TRANSVERSE, [Edit("flipped_horizontally"), Edit("rotated", 90)]),
    ],
)
def test_each_orientation_is_the_only_edit(
    transpose: Image.Transpose, expected: list[Edit]
) -> None:
    assert edits(PHOTO, PHOTO.transpose(transpose)) == expected


def test_a_small_rotation_is_reported_clockwise() -> None:
    turned = PHOTO.rotate(
        -12, Image.Resampling.BICUBIC, expand=True
    )  # Pillow rotates counter-clockwise
    amounts = {edit.name: edit.amount for edit in edits(PHOTO, turned)}
    assert amounts["rotated"] == pytest.approx(12, abs=0.5)


def test_a_homography_is_decomposed_into_rotation_scale_and_aspect_ratio() -> None:
    motion = Motion.of(np.array([[0.0, -2.0, 9.0], [4.0, 0.0, 1.0], [0, 0, 1]]), (100, 100))
    assert motion.rotation_degrees == 90
    assert motion.aspect == pytest.approx(2)
    assert motion.scale == pytest.approx(math.sqrt(8))
    assert not motion.is_flipped_horizontally
    assert not motion.is_flipped_vertically


def pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture.convert("RGB"))


def test_equal_pixels_have_no_error() -> None:
    measures = pixel_measures(pixels(PHOTO), pixels(PHOTO))
    assert measures["mse"] == 0
    assert math.isinf(measures["psnr_db"])
    assert measures["ssim"] == pytest.approx(1)


def test_black_and_white_have_the_maximum_error() -> None:
    black, white = (
        pixels(Image.new("RGB", size, color))
        for size, color in (((30, 20), "black"), ((64, 64), "white"))
    )
    measures = pixel_measures(black, white)
    assert measures["mse"] == 255**2
    assert measures["psnr_db"] == pytest.approx(0)
    assert psnr_db(1.0) == pytest.approx(48.13, abs=0.01)


def test_similarity_is_measured_only_inside_the_mask() -> None:
    first, second = pixels(PHOTO).copy(), pixels(PHOTO).copy()
    second[:, :180] = 255 - second[:, :180]
    mask = np.zeros(first.shape[:2], bool)
    mask[:, 190:] = True
    assert ssim(first, second, mask) == pytest.approx(1)
    assert ssim(first, second) < 0.8


def test_hash_distances_count_bits_and_consider_rotations() -> None:
    turned = pixels(PHOTO.transpose(Image.Transpose.ROTATE_90))
    measures = hash_measures(pixels(PHOTO), turned)
    assert measures["phash_distance"] > 10
    assert measures["pdq_distance"] > 80
    assert measures["pdq_distance_turned"] < 15


@pytest.mark.parametrize("other", [PHOTO.rotate(30), Image.new("RGB", (16, 500), "red")])
def test_an_overlay_of_any_two_pictures_is_drawn(other: Image.Image) -> None:
    first, second = view(PHOTO), view(other)
    file = draw_overlay(first, second, align(first, second))
    with Image.open(io.BytesIO(file)) as overlay:
        overlay.load()
        assert overlay.format == "PNG"
        assert max(overlay.size) < 2000


def test_equal_pixels_are_grey_in_the_overlay_and_added_pixels_are_orange_or_blue() -> None:
    painted = PHOTO.copy()
    painted.paste((0, 0, 0), (150, 100, 210, 160))
    first, second = view(PHOTO), view(painted)
    with Image.open(io.BytesIO(draw_overlay(first, second, align(first, second)))) as overlay:
        panel = np.asarray(overlay.convert("RGB"), np.int16)
    # The middle panel is enlarged from 360 to 420 pixels and is right of the first panel.
    left, top, factor = 16 + 420 + 16, 16, 420 / 360
    spread = panel.max(axis=2) - panel.min(axis=2)

    def color(x: int, y: int) -> float:
        column, row = round(left + x * factor), round(top + y * factor)
        return float(np.median(spread[row - 5 : row + 5, column - 5 : column + 5]))

    assert color(180, 130) > 40
    assert color(60, 60) < 25
    assert color(300, 220) < 25
