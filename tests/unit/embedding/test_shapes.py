"""Bare glyphs, found by their shape whatever their color, size and turn."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Box
from imagesearch_services.embedding.elements import segments, shapes
from imagesearch_services.embedding.elements.features import (
    QueryFeatures,
    StoredElement,
    Working,
    describe_element,
    describe_query,
)
from imagesearch_services.embedding.elements.fusion import evidence, places
from imagesearch_services.embedding.elements.shapes import FIRST_WORD, SHAPE_BYTES, Shape
from imagesearch_services.embedding.elements.verification import Rules, verify
from imagesearch_services.embedding.elements.vocabulary import Vocabulary
from tests.pictures import photo

Pixels = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]

SIDE = 240
SIZE = (900, 700)
LETTERS = ("R", "&", "Q", "5")
NO_EVIDENCE = -9.0


def glyph(letters: str) -> np.ndarray:
    """Draw thick letters, uint8 [side, side], 255 where there is ink."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    scale = 7.0 / len(letters)
    (width, height), _ = cv2.getTextSize(letters, cv2.FONT_HERSHEY_TRIPLEX, scale, 18)
    place = (SIDE - width) // 2, (SIDE + height) // 2
    cv2.putText(mask, letters, place, cv2.FONT_HERSHEY_TRIPLEX, scale, 255, 18, cv2.LINE_AA)
    return mask


def stored(letters: str) -> Pixels:
    """Black on white."""
    return np.dstack([255 - glyph(letters)] * 3)


def pasted(
    letters: str,
    ink: tuple[int, int, int],
    degrees: float = 20,
    *,
    scale: float = 0.8,
    middle: tuple[int, int] = (400, 350),
    onto: Pixels | None = None,
) -> tuple[Pixels, np.ndarray]:
    """Put a glyph on a photo; give its true corners, too."""
    picture = np.asarray(photo(9, SIZE).convert("RGB")) if onto is None else onto
    matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), degrees, scale)
    matrix[:, 2] += np.array(middle) - SIDE / 2
    alpha = cv2.warpAffine(glyph(letters), matrix, SIZE)[..., None] / 255
    mixed = picture * (1 - alpha) + np.array(ink) * alpha
    frame = np.array([(0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)], float)
    return np.rint(mixed).astype(np.uint8), frame @ matrix[:, :2].T + matrix[:, 2]


def view(rgb: Pixels) -> Working:
    height, width = rgb.shape[:2]
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    return Working(Box(0, 0, width, height), grey, rgb)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load()


@pytest.fixture(scope="module")
def elements(vocabulary: Vocabulary) -> list[StoredElement]:
    """Glyphs without any local features, so that only shapes can find them."""
    return [
        without_keypoints(describe_element(view(stored(one)), vocabulary)[0]) for one in LETTERS
    ]


def without_keypoints(element: StoredElement) -> StoredElement:
    keypoints = element.keypoints
    none = replace(
        keypoints,
        points=keypoints.points[:0],
        sizes=keypoints.sizes[:0],
        angles=keypoints.angles[:0],
    )
    return replace(element, keypoints=none, codes=element.codes[:0])


@pytest.mark.parametrize("ink", [(10, 10, 10), (255, 255, 255), (200, 30, 60)])
@pytest.mark.parametrize("degrees", [-30, 140])
def test_a_glyph_is_found_in_any_color_and_turn(
    vocabulary: Vocabulary,
    elements: list[StoredElement],
    ink: tuple[int, int, int],
    degrees: float,
) -> None:
    rgb, truth = pasted("R", ink, degrees)
    query, *_ = describe_query(view(rgb), vocabulary)
    found = verify(query, elements, vocabulary, Rules())
    strongest = max(found, key=lambda one: evidence(elements[one.row], one, None))
    assert strongest.row == LETTERS.index("R")
    corners = places(elements[strongest.row], strongest)[0].corners
    np.testing.assert_allclose(corners, truth, atol=10)


def test_other_glyphs_have_less_evidence(
    vocabulary: Vocabulary, elements: list[StoredElement]
) -> None:
    query, *_ = describe_query(view(pasted("Q", (0, 0, 0))[0]), vocabulary)
    weighed = dict.fromkeys(range(len(elements)), NO_EVIDENCE)
    for one in verify(query, elements, vocabulary, Rules()):
        weighed[one.row] = evidence(elements[one.row], one, None)
    right = weighed.pop(LETTERS.index("Q"))
    assert right > 2
    assert max(weighed.values()) < right / 2


def test_every_place_of_a_glyph_is_told(
    vocabulary: Vocabulary, elements: list[StoredElement]
) -> None:
    first, _ = pasted("5", (0, 0, 0), 0, scale=0.7, middle=(220, 250))
    both, _ = pasted("5", (250, 250, 0), 15, scale=0.6, middle=(650, 450), onto=first)
    query, *_ = describe_query(view(both), vocabulary)
    row = LETTERS.index("5")
    (found,) = [one for one in verify(query, elements, vocabulary, Rules()) if one.row == row]
    middles = np.array([place.corners.mean(axis=0) for place in places(elements[row], found)])
    for true in ((220, 250), (650, 450)):
        assert np.abs(middles - true).max(axis=1).min() < 12


def test_a_glyph_shares_words_of_shapes_with_the_photo_that_shows_it(
    vocabulary: Vocabulary,
) -> None:
    *_, in_photo = describe_query(view(pasted("R", (250, 250, 250))[0]), vocabulary)
    shared = []
    for letters in LETTERS:
        _, bag = describe_element(view(stored(letters)), vocabulary)
        words = bag.words[bag.words >= FIRST_WORD]
        assert len(words) == len(vocabulary.shapes.books)
        shared.append(len(np.intersect1d(words, in_photo.words)))
    assert max(shared) == shared[LETTERS.index("R")]


def test_photos_and_plain_colors_have_no_shape_to_store(vocabulary: Vocabulary) -> None:
    for rgb in (np.asarray(photo(3, (320, 240))), np.full((120, 160, 3), 90, np.uint8)):
        element, bag = describe_element(view(rgb), vocabulary)
        assert element.shape is None
        assert (bag.words < FIRST_WORD).all()


def test_a_plain_photo_has_no_segments() -> None:
    assert not segments.segments(np.full((300, 400, 3), 120, np.uint8))


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (16, 16), (3, 1000)])
def test_narrow_pictures_are_described(vocabulary: Vocabulary, size: tuple[int, int]) -> None:
    rgb = np.full((*size, 3), 255, np.uint8)
    rgb[:, size[1] // 3 : size[1] // 2] = 0
    describe_element(view(rgb), vocabulary)
    query, *_ = describe_query(view(rgb), vocabulary)
    assert not query.shapes


def test_lines_have_no_shape() -> None:
    mask = np.zeros((100, 128), np.float32)
    mask[50, 4:124] = 1
    assert shapes.rings(mask) is None
    assert shapes.rings(np.zeros((100, 128), np.float32)) is None


def test_shapes_come_back_from_their_bytes(vocabulary: Vocabulary) -> None:
    element, _ = describe_element(view(stored("R")), vocabulary)
    raw = element.to_bytes()
    again = StoredElement.from_bytes(raw, vocabulary.code_bytes, field="features")
    assert again.to_bytes() == raw
    query, *_ = describe_query(view(pasted("R", (0, 0, 0))[0]), vocabulary)
    query_again = QueryFeatures.from_bytes(
        query.to_bytes(), vocabulary.components, field="query_features"
    )
    assert query.shapes
    assert len(query_again.shapes) == len(query.shapes)
    np.testing.assert_allclose(
        query_again.shapes[0].profile, query.shapes[0].profile, atol=0.5 / shapes.LEVELS + 1e-6
    )


def test_what_can_be_found_by_its_shape_counts_as_having_features(
    elements: list[StoredElement],
) -> None:
    assert [element.feature_count for element in elements] == [len(shapes.RADII)] * len(LETTERS)


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e30, 0.0])
def test_impossible_shapes_are_refused(vocabulary: Vocabulary, number: float) -> None:
    element, _ = describe_element(view(stored("R")), vocabulary)
    assert element.shape is not None
    raw = bytearray(element.shape.to_bytes())
    raw[8:24] = np.full(4, number, "<f4").tobytes()
    with pytest.raises(ServiceError) as caught:
        Shape.from_bytes(bytes(raw), field="features")
    assert caught.value.reason is Reason.FIELD_INVALID
    assert len(raw) == SHAPE_BYTES
