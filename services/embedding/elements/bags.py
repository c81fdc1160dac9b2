"""Makes bags of visual words, the sparse vectors by which candidate elements are retrieved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.elements.shapes import QUERY_WORDS_PER_TABLE, WORD_WEIGHT, Shape
from imagesearch_services.embedding.elements.vocabulary import Vocabulary

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

MAX_INVERTED_KEYPOINTS = 150
"""Maximum keypoints of an element whose negative (inverted picture) is searched for, too."""
MIN_PHOTO_WEIGHT = 0.03
"""Constant added to the mean weight of a word in photos, since rare words occurred too seldom for
their weight to be measured."""
MIN_EXPECTED_SCORE = 1.0
"""Constant added to the expected score of an element in a photo, since elements with few words
would otherwise match by chance."""


@dataclass(frozen=True, slots=True)
class Bag:
    """A bag of visual words."""

    words: Ints
    """Ids of the words, ascending, without duplicates, [words]."""
    weights: Floats
    """Weight of each word, [words]."""


def element_bag(projected: Floats, vocabulary: Vocabulary) -> Bag:
    """Return the local words of a stored element without counts, which carry little information.

    Args:
        projected: descriptors, float32 [n, components].
        vocabulary: vocabulary that assigns the words.
    """
    words, _ = vocabulary.words(projected, 1)
    if is_searched_inverted(len(projected)):
        inverted, _ = vocabulary.words(vocabulary.inverted(projected), 1)
        words = np.concatenate([words, inverted])
    return weigh_words(words.ravel(), vocabulary)


def element_shape_bag(shape: Shape | None, vocabulary: Vocabulary) -> Bag:
    """Return the words of a stored element's shape, which share `WORD_WEIGHT`, if it has one."""
    words, _ = vocabulary.shapes.words([shape] if shape else [], 1)
    return Bag(words, np.full(len(words), WORD_WEIGHT / max(len(words), 1), np.float32))


def query_bag(projected: Floats, vocabulary: Vocabulary) -> Bag:
    """Return the local words of a query; a word that occurs n times weighs the root of n.

    Args:
        projected: descriptors, float32 [n, components].
        vocabulary: vocabulary that assigns the words.
    """
    words, _ = vocabulary.words(projected, 1)
    distinct, counts = np.unique(words, return_counts=True)
    return Bag(distinct, np.sqrt(counts).astype(np.float32))


def query_shape_bag(shapes: Sequence[Shape], vocabulary: Vocabulary) -> Bag:
    """Return the words of a query's shapes, each weighted by its best fit to any of the shapes."""
    words, fits = vocabulary.shapes.words(shapes, QUERY_WORDS_PER_TABLE)
    distinct, rows = np.unique(words, return_inverse=True)
    weights = np.zeros(len(distinct), np.float32)
    np.maximum.at(weights, rows.ravel(), fits)
    return Bag(distinct, weights)


def weigh_words(words: Ints, vocabulary: Vocabulary) -> Bag:
    """Weigh an element's words by inverse document frequency in photos.

    The weights are divided by the element's expected score in a photo. Otherwise elements with many
    features, or of fabric and noise, would be found in every photo.

    Args:
        words: ids of words, may have duplicates, int64 [n].
        vocabulary: vocabulary with the mean weights of words in photos.
    """
    distinct = np.unique(words)
    photo_weights = vocabulary.photo_weights[distinct]
    inverse_frequency = np.log1p(1 / (photo_weights + MIN_PHOTO_WEIGHT))
    expected_score = float(inverse_frequency @ photo_weights)
    weights = inverse_frequency / (expected_score + MIN_EXPECTED_SCORE)
    return Bag(distinct, weights.astype(np.float32))


def concatenated(local: Bag, shape: Bag) -> Bag:
    """Concatenate bags; the ids of shape words are greater than those of local words."""
    return Bag(
        np.concatenate([local.words, shape.words]),
        np.concatenate([local.weights, shape.weights]),
    )


def is_searched_inverted(keypoint_count: int) -> bool:
    """Return whether the negative of an element is searched for, too.

    Simple logos, which have few keypoints, occur both black on white and white on black.
    """
    return 0 < keypoint_count <= MAX_INVERTED_KEYPOINTS
