"""Words, codes and features of elements, and their geometric verification."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Box
from imagesearch_services.embedding.elements.bags import Bag, query_bag, weigh_words
from imagesearch_services.embedding.elements.description import (
    WorkingImage,
    describe_element,
    describe_query,
)
from imagesearch_services.embedding.elements.features import QueryFeatures, StoredElement
from imagesearch_services.embedding.elements.fusion import evidence
from imagesearch_services.embedding.elements.rules import Rules
from imagesearch_services.embedding.elements.verification import verify
from imagesearch_services.embedding.elements.vocabulary import Vocabulary
from tests.pictures import photo

Grey = np.ndarray[tuple[int, int], np.dtype[np.uint8]]

FIELD = "features"


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load()


def grey(seed: int, width: int, height: int) -> Grey:
    return np.asarray(photo(seed, (width, height)).convert("L"))


def view(pixels: Grey) -> WorkingImage:
    height, width = pixels.shape
    return WorkingImage(Box(0, 0, width, height), pixels)


def element(vocabulary: Vocabulary, pixels: Grey) -> tuple[StoredElement, Bag]:
    return describe_element(view(pixels), vocabulary)


def warped(pixels: Grey, matrix: np.ndarray, size: tuple[int, int] = (800, 600)) -> Grey:
    return np.asarray(cv2.warpAffine(pixels, matrix, size, borderValue=128), np.uint8)


def test_codes_approximate_their_descriptors(vocabulary: Vocabulary) -> None:
    projected = describe_query(view(grey(3, 400, 300)), vocabulary)[0].projected
    decoded = vocabulary.decode(vocabulary.encode(projected))
    errors = np.linalg.norm(decoded - projected, axis=1)
    assert np.median(errors) < np.sqrt(np.median(vocabulary.noise(projected)))


def test_words_are_ordered_by_distance(vocabulary: Vocabulary) -> None:
    projected = describe_query(view(grey(3, 400, 300)), vocabulary)[0].projected
    words, squared = vocabulary.words(projected, 3)
    assert (np.diff(squared, axis=1) >= 0).all()
    assert words.min() >= 0
    assert words.max() < vocabulary.halves.shape[1] ** 2


def test_an_element_is_compact_and_survives_serialization(vocabulary: Vocabulary) -> None:
    stored, bag = element(vocabulary, grey(3, 400, 300))
    raw = stored.to_bytes()
    assert len(raw) < 6_000
    restored = StoredElement.from_bytes(raw, vocabulary.code_bytes, field=FIELD)
    assert restored.to_bytes() == raw
    np.testing.assert_allclose(restored.keypoints.points, stored.keypoints.points, atol=0.01)
    rotations = restored.keypoints.angles - stored.keypoints.angles
    assert np.abs((rotations + np.pi) % (2 * np.pi) - np.pi).max() < 0.02
    assert (np.diff(bag.words) > 0).all()
    assert len(bag.words) == len(bag.weights)


def test_common_words_weigh_less_than_rare_words(vocabulary: Vocabulary) -> None:
    common, rare = int(vocabulary.photo_weights.argmax()), int(vocabulary.photo_weights.argmin())
    bag = weigh_words(np.array([rare, common, common]), vocabulary)
    weights = dict(zip(bag.words.tolist(), bag.weights.tolist(), strict=True))
    assert weights[common] < 0.5 * weights[rare]


def test_elements_of_rare_words_outweigh_elements_of_common_words(vocabulary: Vocabulary) -> None:
    order = np.argsort(-vocabulary.photo_weights)
    common, rare = weigh_words(order[:200], vocabulary), weigh_words(order[-200:], vocabulary)
    fewer = weigh_words(order[-20:], vocabulary)
    assert rare.weights.sum() > 10 * common.weights.sum()
    assert fewer.weights.sum() < rare.weights.sum()


def test_a_word_that_occurs_four_times_weighs_twice_as_much(vocabulary: Vocabulary) -> None:
    projected = describe_query(view(grey(3, 400, 300)), vocabulary)[0].projected
    once = query_bag(projected[:1], vocabulary)
    restored = query_bag(np.repeat(projected[:1], 4, axis=0), vocabulary)
    assert restored.words.tolist() == once.words.tolist()
    np.testing.assert_allclose(restored.weights, 2 * once.weights)


def test_a_query_survives_serialization(vocabulary: Vocabulary) -> None:
    query, bag, _ = describe_query(view(grey(3, 400, 300)), vocabulary)
    restored = QueryFeatures.from_bytes(query.to_bytes(), vocabulary.components, field=FIELD)
    assert restored.region == query.region
    np.testing.assert_array_equal(restored.keypoints.points, query.keypoints.points)
    np.testing.assert_allclose(restored.projected, query.projected, atol=1e-3)
    assert (np.diff(bag.words) > 0).all()


def test_a_uniform_color_has_neither_features_nor_words(vocabulary: Vocabulary) -> None:
    plain = np.full((100, 200), 90, np.uint8)
    stored, bag = element(vocabulary, plain)
    assert not len(stored.keypoints)
    assert not len(bag.words)
    query, query_words, _ = describe_query(view(plain), vocabulary)
    assert not len(query_words.words)
    assert not verify(query, [stored], vocabulary, Rules())


@pytest.mark.parametrize("degrees", [0, 45, 180])
@pytest.mark.parametrize("scale", [0.5, 1.3])
def test_a_transformed_element_is_localized(
    vocabulary: Vocabulary, degrees: float, scale: float
) -> None:
    pixels = grey(3, 400, 300)
    stored, _ = element(vocabulary, pixels)
    matrix = cv2.getRotationMatrix2D((200, 150), degrees, scale)
    matrix[:, 2] += (200, 150)
    query, *_ = describe_query(view(warped(pixels, matrix)), vocabulary)
    (found,) = verify(query, [stored], vocabulary, Rules())
    frame = np.array([(0, 0), (400, 0), (400, 300), (0, 300)], float)
    truth = frame @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(found.instances[0].corners, truth, atol=8)


def test_other_elements_have_less_evidence_than_the_element_shown(vocabulary: Vocabulary) -> None:
    elements = [element(vocabulary, grey(seed, 400, 300))[0] for seed in (0, 3, 5, 8)]
    query, *_ = describe_query(view(grey(5, 600, 450)), vocabulary)
    found = {
        verified.row: evidence(elements[verified.row], verified, None)
        for verified in verify(query, elements, vocabulary, Rules())
    }
    correct = found.pop(2)
    assert correct > 2
    assert max(found.values(), default=0.0) < correct / 2


def test_a_mirrored_element_is_not_found(vocabulary: Vocabulary) -> None:
    stored, _ = element(vocabulary, grey(3, 400, 300))
    mirrored = np.ascontiguousarray(grey(3, 400, 300)[:, ::-1])
    query, *_ = describe_query(view(mirrored), vocabulary)
    found = verify(query, [stored], vocabulary, Rules())
    assert all(evidence(stored, verified, None) < 1 for verified in found)


def test_regional_similarity_adds_evidence(vocabulary: Vocabulary) -> None:
    stored, _ = element(vocabulary, grey(3, 400, 300))
    query, *_ = describe_query(view(grey(3, 600, 450)), vocabulary)
    (found,) = verify(query, [stored], vocabulary, Rules())
    without_similarity = evidence(stored, found, None)
    assert evidence(stored, found, 0.3) > without_similarity


def read_error(read: Callable[[], object]) -> ServiceError | None:
    """Return the error that a function raises; None if it succeeds."""
    try:
        read()
    except ServiceError as error:
        return error
    return None


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_are_refused(raw: bytes, is_tagged: bool) -> None:
    element_bytes = b"E1" + raw if is_tagged else raw
    query_bytes = b"Q1" + raw if is_tagged else raw
    for error in (
        read_error(lambda: StoredElement.from_bytes(element_bytes, 16, field=FIELD)),
        read_error(lambda: QueryFeatures.from_bytes(query_bytes, 64, field=FIELD)),
    ):
        assert error is None or error.reason is Reason.FIELD_INVALID


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_corrupted_features_are_refused_or_verified(data: st.DataObject) -> None:
    vocabulary = Vocabulary.load()
    query, *_ = describe_query(view(grey(3, 120, 90)), vocabulary)
    stored, _ = element(vocabulary, grey(3, 120, 90))
    query_bytes, element_bytes = bytearray(query.to_bytes()), bytearray(stored.to_bytes())
    for raw in (query_bytes, element_bytes):
        for _ in range(data.draw(st.integers(0, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))

    def search() -> None:
        restored = QueryFeatures.from_bytes(bytes(query_bytes), 64, field=FIELD)
        candidate = StoredElement.from_bytes(bytes(element_bytes), 16, field=FIELD)
        verify(restored, [candidate], vocabulary, Rules())

    error = read_error(search)
    assert error is None or error.reason is Reason.FIELD_INVALID
