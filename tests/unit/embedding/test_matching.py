"""Matching of a query with several elements at once."""

from __future__ import annotations

import numpy as np
import pytest

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.elements.description import (
    WorkingImage,
    describe_element,
    describe_query,
)
from imagesearch_services.embedding.elements.features import QueryFeatures, StoredElement
from imagesearch_services.embedding.elements.matching import (
    MAX_MATCHES_PER_FEATURE,
    Gallery,
    match,
)
from imagesearch_services.embedding.elements.rules import Rules
from imagesearch_services.embedding.elements.verification import verify
from imagesearch_services.embedding.elements.vocabulary import Vocabulary
from tests.pictures import photo

SEEDS = (3, 5, 8)
SHOWN = SEEDS.index(5)


def view(pixels: np.ndarray) -> WorkingImage:
    height, width = pixels.shape
    return WorkingImage(Box(0, 0, width, height), np.asarray(pixels, np.uint8))


def grey(seed: int, width: int, height: int) -> np.ndarray:
    return np.asarray(photo(seed, (width, height)).convert("L"))


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load()


@pytest.fixture(scope="module")
def elements(vocabulary: Vocabulary) -> list[StoredElement]:
    return [describe_element(view(grey(seed, 400, 300)), vocabulary)[0] for seed in SEEDS]


@pytest.fixture(scope="module")
def query(vocabulary: Vocabulary) -> QueryFeatures:
    turned = np.ascontiguousarray(np.rot90(grey(SEEDS[SHOWN], 600, 450)))
    return describe_query(view(turned), vocabulary)[0]


def test_cells_keep_nearly_all_matches_below_the_noise_distance(
    vocabulary: Vocabulary, elements: list[StoredElement], query: QueryFeatures
) -> None:
    matches = match(query, Gallery.of(elements, vocabulary), vocabulary)
    for row, element in enumerate(elements):
        stored = vocabulary.decode(element.codes)
        squared = ((query.projected[:, None] - stored[None]) ** 2).sum(axis=2)
        true = set(zip(*np.nonzero(squared < query.noise[:, None]), strict=True))
        own = matches.of(row)
        found = set(zip(own.query.tolist(), own.element.tolist(), strict=True))
        assert found <= true
        assert len(found) > 0.9 * len(true)


def test_matches_are_best_first_and_weighted_by_distance(
    vocabulary: Vocabulary, elements: list[StoredElement], query: QueryFeatures
) -> None:
    own = match(query, Gallery.of(elements, vocabulary), vocabulary).of(SHOWN)
    assert (np.diff(own.weights) <= 0).all()
    differences = query.projected[own.query] - vocabulary.decode(elements[SHOWN].codes)[own.element]
    distances = np.linalg.norm(differences, axis=1) / np.sqrt(query.noise[own.query])
    np.testing.assert_allclose(own.weights, 1 - distances, atol=1e-3)


def test_agreement_is_greatest_for_the_element_shown(
    vocabulary: Vocabulary, elements: list[StoredElement], query: QueryFeatures
) -> None:
    matches = match(query, Gallery.of(elements, vocabulary), vocabulary)
    agreement, own = matches.agreement, matches.of(SHOWN)
    _, best = np.unique(own.query, return_index=True)
    assert agreement[SHOWN] > 0.5 * own.weights[best].sum()
    assert agreement.argmax() == SHOWN
    assert agreement[SHOWN] > 3 * np.delete(agreement, SHOWN).max()


def test_elements_outside_a_restricted_gallery_have_no_matches(
    vocabulary: Vocabulary, elements: list[StoredElement], query: QueryFeatures
) -> None:
    gallery = Gallery.of(elements, vocabulary)
    whole = match(query, gallery, vocabulary)
    part = match(query, gallery.restricted_to(np.array([False, True, False])), vocabulary)
    assert [len(part.of(row)) > 0 for row in range(len(SEEDS))] == [False, True, False]
    assert set(part.of(1).element) == set(whole.of(1).element)
    np.testing.assert_array_equal(part.agreement > 0, [False, True, False])


def test_matches_of_a_repeated_feature_are_limited(vocabulary: Vocabulary) -> None:
    tile = grey(7, 50, 50)
    pattern, _ = describe_element(view(np.tile(tile, (6, 8))), vocabulary)
    shown, *_ = describe_query(view(np.tile(tile, (9, 12))), vocabulary)
    own = match(shown, Gallery.of([pattern], vocabulary), vocabulary).of(0)
    assert np.bincount(own.query).max() == MAX_MATCHES_PER_FEATURE


def test_there_are_no_matches_without_features(
    vocabulary: Vocabulary, elements: list[StoredElement], query: QueryFeatures
) -> None:
    plain, _ = describe_element(view(np.full((80, 90), 7, np.uint8)), vocabulary)
    empty, *_ = describe_query(view(np.full((80, 90), 7, np.uint8)), vocabulary)
    for features, stored in ((query, [plain]), (empty, elements), (query, [])):
        matches = match(features, Gallery.of(stored, vocabulary), vocabulary)
        assert not len(matches.matches)
        assert not matches.agreement.any()
        assert not verify(features, stored, vocabulary, Rules(), [0.5] * len(stored))
    assert not verify(query, [], vocabulary, Rules())


def test_the_element_with_the_greatest_agreement_is_localized_first(
    vocabulary: Vocabulary, elements: list[StoredElement], query: QueryFeatures
) -> None:
    (found,) = verify(query, elements, vocabulary, Rules(max_localized=1))
    assert found.row == SHOWN


def test_regional_similarity_raises_the_priority_of_an_element(
    vocabulary: Vocabulary, elements: list[StoredElement], query: QueryFeatures
) -> None:
    similarities = [0.0, 0.0, 100.0]
    found = verify(query, elements, vocabulary, Rules(max_localized=1), similarities)
    assert SHOWN not in [verified.row for verified in found]
