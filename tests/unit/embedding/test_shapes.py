"""Search for bare glyphs by their shapes, in any color, size and rotation."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Box
from imagesearch_services.embedding.elements import shapes
from imagesearch_services.embedding.elements.description import (
    WorkingImage,
    describe_element,
    describe_query,
)
from imagesearch_services.embedding.elements.features import QueryFeatures, StoredElement
from imagesearch_services.embedding.elements.fusion import appearances, evidence
from imagesearch_services.embedding.elements.rules import Rules
from imagesearch_services.embedding.elements.segments import find_segments
from imagesearch_services.embedding.elements.shapes import FIRST_WORD, SHAPE_BYTES, Shape
from imagesearch_services.embedding.elements.verification import verify
from imagesearch_services.embedding.elements.vocabulary import Vocabulary
from tests.pictures import photo

Pixels = np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]

SIDE = 240
SIZE = (900, 700)
LETTERS = ("R", "&", "Q", "5")
NO_EVIDENCE = -9.0


def glyph(letters: str) -> np.ndarray:
    """Draw thick letters, uint8 [side, side], 255 for ink."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    scale = 7.0 / len(letters)
    (width, height), _ = cv2.getTextSize(letters, cv2.FONT_HERSHEY_TRIPLEX, scale, 18)
    place = (SIDE - width) // 2, (SIDE + height) // 2
    cv2.putText(mask, letters, place, cv2.FONT_HERSHEY_TRIPLEX, scale, 255, 18, cv2.LINE_AA)
    return mask


def stored(letters: str) -> Pixels:
    """Return a glyph as it is stored, black on white."""
    return np.dstack([255 - glyph(letters)] * 3)


def pasted(
    letters: str,
    ink: tuple[int, int, int],
    degrees: float = 20,
    *,
    scale: float = 0.8,
    center: tuple[int, int] = (400, 350),
    onto: Pixels | None = None,
) -> tuple[Pixels, np.ndarray]:
    """Return a photo with a glyph pasted onto it, and the true corners of the glyph."""
    picture = np.asarray(photo(9, SIZE).convert("RGB")) if onto is None else onto
    matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), degrees, scale)
    matrix[:, 2] += np.array(center) - SIDE / 2
    alpha = cv2.warpAffine(glyph(letters), matrix, SIZE)[..., None] / 255
    mixed = picture * (1 - alpha) + np.array(ink) * alpha
    frame = np.array([(0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)], float)
    return np.rint(mixed).astype(np.uint8), frame @ matrix[:, :2].T + matrix[:, 2]


def view(rgb: Pixels) -> WorkingImage:
    height, width = rgb.shape[:2]
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    return WorkingImage(Box(0, 0, width, height), grey, rgb)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load()


@pytest.fixture(scope="module")
def elements(vocabulary: Vocabulary) -> list[StoredElement]:
    """Describe glyphs without local features, so that only their shapes can be found."""
    return [
        without_keypoints(describe_element(view(stored(letters)), vocabulary)[0])
        for letters in LETTERS
    ]


def without_keypoints(element: StoredElement) -> StoredElement:
    keypoints = element.keypoints
    no_keypoints = replace(
        keypoints,
        points=keypoints.points[:0],
        sizes=keypoints.sizes[:0],
        angles=keypoints.angles[:0],
    )
    return replace(element, keypoints=no_keypoints, codes=element.codes[:0])


@pytest.mark.parametrize("ink", [(10, 10, 10), (255, 255, 255), (200, 30, 60)])
@pytest.mark.parametrize("degrees", [-30, 140])
def test_a_glyph_is_found_in_any_color_and_rotation(
    vocabulary: Vocabulary,
    elements: list[StoredElement],
    ink: tuple[int, int, int],
    degrees: float,
) -> None:
    rgb, truth = pasted("R", ink, degrees)
    query, *_ = describe_query(view(rgb), vocabulary)
    found = verify(query, elements, vocabulary, Rules())
    strongest = max(found, key=lambda verified: evidence(elements[verified.row], verified, None))
    assert strongest.row == LETTERS.index("R")
    corners = appearances(elements[strongest.row], strongest)[0].corners
    np.testing.assert_allclose(corners, truth, atol=10)


def test_other_glyphs_have_less_evidence(
    vocabulary: Vocabulary, elements: list[StoredElement]
) -> None:
    query, *_ = describe_query(view(pasted("Q", (0, 0, 0))[0]), vocabulary)
    evidence_by_row = dict.fromkeys(range(len(elements)), NO_EVIDENCE)
    for verified in verify(query, elements, vocabulary, Rules()):
        evidence_by_row[verified.row] = evidence(elements[verified.row], verified, None)
    correct = evidence_by_row.pop(LETTERS.index("Q"))
    assert correct > 2
    assert max(evidence_by_row.values()) < correct / 2


def test_all_appearances_of_a_glyph_are_found(
    vocabulary: Vocabulary, elements: list[StoredElement]
) -> None:
    first, _ = pasted("5", (0, 0, 0), 0, scale=0.7, center=(220, 250))
    both, _ = pasted("5", (250, 250, 0), 15, scale=0.6, center=(650, 450), onto=first)
    query, *_ = describe_query(view(both), vocabulary)
    row = LETTERS.index("5")
    verified = verify(query, elements, vocabulary, Rules())
    (found,) = [element for element in verified if element.row == row]
    centers = np.array(
        [appearance.corners.mean(axis=0) for appearance in appearances(elements[row], found)]
    )
    for true in ((220, 250), (650, 450)):
        assert np.abs(centers - true).max(axis=1).min() < 12


def test_a_glyph_shares_shape_words_with_a_photo_that_shows_it(
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


def test_photos_and_uniform_colors_have_no_stored_shape(vocabulary: Vocabulary) -> None:
    for rgb in (np.asarray(photo(3, (320, 240))), np.full((120, 160, 3), 90, np.uint8)):
        element, bag = describe_element(view(rgb), vocabulary)
        assert element.shape is None
        assert (bag.words < FIRST_WORD).all()


def test_a_uniform_photo_has_no_segments() -> None:
    assert not find_segments(np.full((300, 400, 3), 120, np.uint8))


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (16, 16), (3, 1000)])
def test_narrow_pictures_are_described_without_shapes(
    vocabulary: Vocabulary, size: tuple[int, int]
) -> None:
    rgb = np.full((*size, 3), 255, np.uint8)
    rgb[:, size[1] // 3 : size[1] // 2] = 0
    describe_element(view(rgb), vocabulary)
    query, *_ = describe_query(view(rgb), vocabulary)
    assert not query.shapes


def test_lines_have_no_shape() -> None:
    mask = np.zeros((100, 128), np.float32)
    mask[50, 4:124] = 1
    assert shapes.sample_rings(mask) is None
    assert shapes.sample_rings(np.zeros((100, 128), np.float32)) is None


def test_shapes_survive_serialization(vocabulary: Vocabulary) -> None:
    element, _ = describe_element(view(stored("R")), vocabulary)
    raw = element.to_bytes()
    restored = StoredElement.from_bytes(raw, vocabulary.code_bytes, field="features")
    assert restored.to_bytes() == raw
    query, *_ = describe_query(view(pasted("R", (0, 0, 0))[0]), vocabulary)
    restored_query = QueryFeatures.from_bytes(
        query.to_bytes(), vocabulary.components, field="query_features"
    )
    assert query.shapes
    assert len(restored_query.shapes) == len(query.shapes)
    np.testing.assert_allclose(
        restored_query.shapes[0].profile, query.shapes[0].profile, atol=0.5 / shapes.LEVELS + 1e-6
    )


def test_rings_of_a_shape_count_as_features(
    elements: list[StoredElement],
) -> None:
    assert [element.feature_count for element in elements] == [len(shapes.RADII)] * len(LETTERS)


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e30, 0.0])
def test_invalid_shapes_are_refused(vocabulary: Vocabulary, number: float) -> None:
    element, _ = describe_element(view(stored("R")), vocabulary)
    assert element.shape is not None
    raw = bytearray(element.shape.to_bytes())
    raw[8:24] = np.full(4, number, "<f4").tobytes()
    with pytest.raises(ServiceError) as caught:
        Shape.from_bytes(bytes(raw), field="features")
    assert caught.value.reason is Reason.FIELD_INVALID
    assert len(raw) == SHAPE_BYTES
