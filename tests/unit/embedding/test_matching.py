"""Features of a query beside those of many elements at once."""

from __future__ import annotations

import numpy as np
import pytest

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.elements.features import (
    QueryFeatures,
    StoredElement,
    Working,
    describe_element,
    describe_query,
)
from imagesearch_services.embedding.elements.matching import (
    MAX_MATCHES_A_FEATURE,
    Gallery,
    match,
)
from imagesearch_services.embedding.elements.verification import Rules, verify
from imagesearch_services.embedding.elements.vocabulary import Vocabulary
from tests.pictures import photo

SEEDS = (3, 5, 8)
SHOWN = SEEDS.index(5)


def view(pixels: np.ndarray) -> Working:
    height, width = pixels.shape
    return Working(Box(0, 0, width, height), np.asarray(pixels, np.uint8))


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


def test_cells_keep_nearly_all_pairs_that_mean_something(
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


def test_matches_come_best_first_and_weigh_as_they_are_near(
    vocabulary: Vocabulary, elements: list[StoredElement], query: QueryFeatures
) -> None:
    own = match(query, Gallery.of(elements, vocabulary), vocabulary).of(SHOWN)
    assert (np.diff(own.weights) <= 0).all()
    missing = query.projected[own.query] - vocabulary.decode(elements[SHOWN].codes)[own.element]
    distances = np.linalg.norm(missing, axis=1) / np.sqrt(query.noise[own.query])
    np.testing.assert_allclose(own.weights, 1 - distances, atol=1e-3)


def test_most_agrees_with_the_element_that_is_shown(
    vocabulary: Vocabulary, elements: list[StoredElement], query: QueryFeatures
) -> None:
    matches = match(query, Gallery.of(elements, vocabulary), vocabulary)
    agreement, own = matches.agreement, matches.of(SHOWN)
    _, best = np.unique(own.query, return_index=True)
    assert agreement[SHOWN] > 0.5 * own.weights[best].sum()
    assert agreement.argmax() == SHOWN
    assert agreement[SHOWN] > 3 * np.delete(agreement, SHOWN).max()


def test_elements_that_are_left_out_have_no_matches(
    vocabulary: Vocabulary, elements: list[StoredElement], query: QueryFeatures
) -> None:
    gallery = Gallery.of(elements, vocabulary)
    whole = match(query, gallery, vocabulary)
    part = match(query, gallery.only(np.array([False, True, False])), vocabulary)
    assert [len(part.of(row)) > 0 for row in range(len(SEEDS))] == [False, True, False]
    assert set(part.of(1).element) == set(whole.of(1).element)
    np.testing.assert_array_equal(part.agreement > 0, [False, True, False])


def test_a_repeating_feature_leaves_room_for_others(vocabulary: Vocabulary) -> None:
    tile = grey(7, 50, 50)
    pattern, _ = describe_element(view(np.tile(tile, (6, 8))), vocabulary)
    shown, *_ = describe_query(view(np.tile(tile, (9, 12))), vocabulary)
    own = match(shown, Gallery.of([pattern], vocabulary), vocabulary).of(0)
    assert np.bincount(own.query).max() == MAX_MATCHES_A_FEATURE


def test_without_features_nothing_matches(
    vocabulary: Vocabulary, elements: list[StoredElement], query: QueryFeatures
) -> None:
    plain, _ = describe_element(view(np.full((80, 90), 7, np.uint8)), vocabulary)
    empty, *_ = describe_query(view(np.full((80, 90), 7, np.uint8)), vocabulary)
    for seen, stored in ((query, [plain]), (empty, elements), (query, [])):
        matches = match(seen, Gallery.of(stored, vocabulary), vocabulary)
        assert not len(matches.matches)
        assert not matches.agreement.any()
        assert not verify(seen, stored, vocabulary, Rules(), [0.5] * len(stored))
    assert not verify(query, [], vocabulary, Rules())


def test_places_are_looked_for_where_most_agrees(
    vocabulary: Vocabulary, elements: list[StoredElement], query: QueryFeatures
) -> None:
    (found,) = verify(query, elements, vocabulary, Rules(max_looked_for=1))
    assert found.row == SHOWN


def test_a_likeness_of_regions_brings_an_element_forward(
    vocabulary: Vocabulary, elements: list[StoredElement], query: QueryFeatures
) -> None:
    likeness = [0.0, 0.0, 100.0]
    found = verify(query, elements, vocabulary, Rules(max_looked_for=1), likeness)
    assert SHOWN not in [one.row for one in found]
