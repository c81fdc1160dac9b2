"""Bags of visual words: the sparse vectors that candidate elements are retrieved by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.elements.shapes import WORD_WEIGHT, WORDS_TRIED, Shape
from imagesearch_services.embedding.elements.vocabulary import Vocabulary

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

MAX_INVERTED_KEYPOINTS = 150
"""Maximum keypoints of an element that is searched for as a negative, too."""
MIN_PHOTO_WEIGHT = 0.03
"""Added to the mean weight of a word in photos: its lower bound, since rare words were too few to
measure."""
MIN_EXPECTED_SCORE = 1.0
"""Added to the expected score of an element in a photo: elements with few words would otherwise
match by chance."""


@dataclass(frozen=True, slots=True)
class Bag:
    """A bag of visual words."""

    words: Ints
    """Ascending, without duplicates, [words]."""
    weights: Floats
    """[words]."""


def element_bag(projected: Floats, vocabulary: Vocabulary) -> Bag:
    """Return the local words of a stored element, each once: repeats carry little information.

    Args:
        projected: descriptors, float32 [n, components].
        vocabulary: assigns words.
    """
    words, _ = vocabulary.words(projected, 1)
    if is_searched_inverted(len(projected)):
        inverted, _ = vocabulary.words(vocabulary.inverted(projected), 1)
        words = np.concatenate([words, inverted])
    return weigh_words(words.ravel(), vocabulary)


def element_shape_bag(shape: Shape | None, vocabulary: Vocabulary) -> Bag:
    """Return the words of a stored element's shape, which share one weight; empty without shape."""
    words, _ = vocabulary.shapes.words([shape] if shape else [], 1)
    return Bag(words, np.full(len(words), WORD_WEIGHT / max(len(words), 1), np.float32))


def query_bag(projected: Floats, vocabulary: Vocabulary) -> Bag:
    """Return the local words of a query; a word that occurs n times weighs the root of n.

    Args:
        projected: descriptors, float32 [n, components].
        vocabulary: assigns words.
    """
    words, _ = vocabulary.words(projected, 1)
    distinct, counts = np.unique(words, return_counts=True)
    return Bag(distinct, np.sqrt(counts).astype(np.float32))


def query_shape_bag(shapes: Sequence[Shape], vocabulary: Vocabulary) -> Bag:
    """Return the words of a query's shapes, weighted by the best fit of any shape to the word."""
    words, fits = vocabulary.shapes.words(shapes, WORDS_TRIED)
    distinct, rows = np.unique(words, return_inverse=True)
    weights = np.zeros(len(distinct), np.float32)
    np.maximum.at(weights, rows.ravel(), fits)
    return Bag(distinct, weights)


def weigh_words(words: Ints, vocabulary: Vocabulary) -> Bag:
    """Weigh an element's words by inverse document frequency in photos.

    The weights are divided by the element's expected score in a photo. Otherwise elements with many
    features, or of fabric and noise, would be found in every photo.

    Args:
        words: may have duplicates, int64 [n].
        vocabulary: has the mean weights of words in photos.
    """
    distinct = np.unique(words)
    photo_weights = vocabulary.photo_weights[distinct]
    inverse_frequency = np.log1p(1 / (photo_weights + MIN_PHOTO_WEIGHT))
    expected_score = float(inverse_frequency @ photo_weights)
    weights = inverse_frequency / (expected_score + MIN_EXPECTED_SCORE)
    return Bag(distinct, weights.astype(np.float32))


def concatenated(local: Bag, shape: Bag) -> Bag:
    """Concatenate bags; words of shapes are greater than all words of local features."""
    return Bag(
        np.concatenate([local.words, shape.words]),
        np.concatenate([local.weights, shape.weights]),
    )


def is_searched_inverted(keypoint_count: int) -> bool:
    """Return whether an element is searched for as a negative, too.

    Simple logos, which have few keypoints, occur both black on white and white on black.
    """
    return 0 < keypoint_count <= MAX_INVERTED_KEYPOINTS
