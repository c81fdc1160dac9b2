"""Matches the local features of a query with the features of many stored elements at once.

Comparing each feature of a query with each feature of hundreds of candidates would take most of the
time of a search. The features are therefore assigned to cells around landmarks, and a query's
feature is compared only with the features in the nearest cells (an inverted file; Jégou et al.,
"Product quantization for nearest neighbor search", PAMI 2011, section IV).

Matches of one object agree in scale and rotation. The weight of agreeing matches ranks elements for
the slower localization (weak geometric consistency; Jégou et al., "Hamming embedding and weak
geometric consistency for large scale image search", ECCV 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.elements.features import (
    Keypoints,
    QueryFeatures,
    StoredElement,
)
from imagesearch_services.embedding.elements.vocabulary import Vocabulary

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

CELLS = 128
"""Number of cells of the inverted file."""
PROBED_CELLS = 16
"""Number of nearest cells that a query's feature is compared with; they hold 98 % of the matches.
"""
MAX_MATCHES_PER_FEATURE = 16
"""Maximum matches of a query's feature with one element. A repeating pattern has many equally near
features, which would leave no room for the matches of other features."""
ROWS_PER_BLOCK = 8192
"""Number of features that are assigned to cells at once, which bounds the memory."""
SCALE_BIN = float(np.log(1.8))
"""Width of a bin of the log scale ratio."""
SCALE_BINS = 16
"""Number of bins of the log scale ratio."""
ROTATION_BINS = 9
"""Number of bins of the rotation, 40 degrees each."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Matched pairs of features, best first."""

    query: Ints
    """Rows of the query's features, [n]."""
    element: Ints
    """Rows of the element's or the gallery's features, [n]."""
    weights: Floats
    """1 minus distance divided by noise distance, 0 to 1, [n]."""

    def __len__(self) -> int:
        return len(self.query)

    def take(self, rows: Ints | Bools | slice) -> Matches:
        """Return the selected matches."""
        return Matches(self.query[rows], self.element[rows], self.weights[rows])


@dataclass(frozen=True, slots=True)
class Gallery:
    """The features of several elements, concatenated."""

    element_count: int
    elements: Ints
    """Index of each feature's element, ascending, [n]."""
    rows: Ints
    """Row of each feature in its own element, [n]."""
    keypoints: Keypoints
    descriptors: Floats
    """Approximate projected descriptors, [n, components]."""
    cells: Ints
    """Cell of each feature, [n]."""

    @classmethod
    def of(cls, elements: Sequence[StoredElement], vocabulary: Vocabulary) -> Gallery:
        """Concatenate the features of elements."""
        counts = [len(element.keypoints) for element in elements]
        element_numbers = np.repeat(np.arange(len(elements)), counts)
        starts = np.cumsum([0, *counts])[:-1]
        codes = [element.codes for element in elements]
        no_codes = np.empty((0, vocabulary.code_bytes), np.uint8)
        descriptors = vocabulary.decode(np.concatenate([no_codes, *codes]))
        return cls(
            len(elements),
            element_numbers,
            np.arange(len(element_numbers)) - starts[element_numbers],
            _concatenated([element.keypoints for element in elements]),
            descriptors,
            _cells(descriptors, vocabulary),
        )

    def restricted_to(self, kept: Bools) -> Gallery:
        """Drop the features of elements that are not kept; the indices of elements do not change.

        Args:
            kept: whether each element is kept, [elements].
        """
        rows = kept[self.elements]
        points, sizes, angles = self.keypoints.points, self.keypoints.sizes, self.keypoints.angles
        return replace(
            self,
            elements=self.elements[rows],
            rows=self.rows[rows],
            keypoints=Keypoints(points[rows], sizes[rows], angles[rows]),
            descriptors=self.descriptors[rows],
            cells=self.cells[rows],
        )


def _concatenated(keypoints: Sequence[Keypoints]) -> Keypoints:
    empty = np.empty(0, np.float32)
    return Keypoints(
        np.concatenate([empty.reshape(0, 2), *(part.points for part in keypoints)]),
        np.concatenate([empty, *(part.sizes for part in keypoints)]),
        np.concatenate([empty, *(part.angles for part in keypoints)]),
    )


@dataclass(frozen=True, slots=True)
class GalleryMatches:
    """Matches of a query with each element of a gallery."""

    matches: Matches
    """Matches grouped by element, best first; `element` holds rows of the gallery."""
    offsets: Ints
    """Start of each element's matches, and the end of the last, [elements + 1]."""
    agreement: Doubles
    """Total weight of the matches that agree in scale and rotation, [elements]."""
    gallery: Gallery

    def of(self, element: int) -> Matches:
        """Return the matches of one element, with rows of the element's own features."""
        matches = self.matches.take(slice(*self.offsets[element : element + 2]))
        return replace(matches, element=self.gallery.rows[matches.element])


def match(query: QueryFeatures, gallery: Gallery, vocabulary: Vocabulary) -> GalleryMatches:
    """Match a query's features with a gallery's."""
    found = _all_matches(query, gallery, vocabulary)
    elements = gallery.elements[found.element]
    groups = elements * len(query.keypoints) + found.query
    order = np.argsort(-found.weights, kind="stable")
    order = order[np.argsort(groups[order], kind="stable")]
    ranks = _ranks_in_groups(groups[order])
    best = order[ranks == 0]
    agreement = _agreement(query.keypoints, found.take(best), gallery)
    kept = order[ranks < MAX_MATCHES_PER_FEATURE]
    kept = kept[np.argsort(-found.weights[kept], kind="stable")]
    kept = kept[np.argsort(elements[kept], kind="stable")]
    offsets = np.searchsorted(elements[kept], np.arange(gallery.element_count + 1))
    return GalleryMatches(found.take(kept), offsets, agreement, gallery)


def _all_matches(query: QueryFeatures, gallery: Gallery, vocabulary: Vocabulary) -> Matches:
    """Return the pairs of features in near cells whose distance is below the noise distance."""
    if not len(query.keypoints) or not len(gallery.elements):
        no_rows = np.empty(0, np.int64)
        return Matches(no_rows, no_rows, np.empty(0, np.float32))
    order = np.argsort(gallery.cells, kind="stable")
    offsets = np.searchsorted(gallery.cells[order], np.arange(CELLS + 1))
    stored = gallery.descriptors[order]
    # noise - |q - s|² as one matrix product: 2 q·s - |s|² + (noise - |q|²).
    ones = np.ones((len(stored), 1), np.float32)
    right = np.hstack([2 * stored, -_squared_norms(stored)[:, None], ones])
    slack = query.noise - _squared_norms(query.projected)
    left = np.column_stack([query.projected, np.ones(len(slack), np.float32), slack])
    is_near = _near_cells(query.projected, vocabulary)
    pairs: list[tuple[Ints, Ints, Floats]] = []
    for is_probed, start, end in zip(is_near, offsets[:-1], offsets[1:], strict=True):
        rows = np.flatnonzero(is_probed)
        margins = left[rows] @ right[start:end].T
        flat = np.flatnonzero(margins > 0)
        first, second = np.divmod(flat, max(end - start, 1))
        pairs.append((rows[first], order[start + second], margins.ravel()[flat]))
    rows, columns, margins = (np.concatenate(column) for column in zip(*pairs, strict=True))
    noise = np.maximum(query.noise[rows], 1e-9)
    weights = 1 - np.sqrt(np.maximum(noise - margins, 0) / noise)
    return Matches(rows, columns, weights.astype(np.float32))


def _near_cells(descriptors: Floats, vocabulary: Vocabulary) -> Bools:
    """Return the mask of the cells that each descriptor is compared with, [cells, n]."""
    scores = _cell_scores(descriptors, vocabulary)
    cells = np.argpartition(-scores, PROBED_CELLS, axis=1)[:, :PROBED_CELLS]
    is_near = np.zeros((CELLS, len(descriptors)), bool)
    is_near[cells, np.arange(len(descriptors))[:, None]] = True
    return is_near


def _agreement(query: Keypoints, best: Matches, gallery: Gallery) -> Doubles:
    """Return the total weight of the matches of each element that agree in scale and rotation.

    Weights are summed in a histogram; the result is the maximum over 2 × 2 adjacent bins.

    Args:
        query: keypoints of the query.
        best: the best match of each feature of the query with each element.
        gallery: features of the elements.

    Returns:
        [elements].
    """
    stored = gallery.keypoints
    log_scales = np.log(query.sizes[best.query] / stored.sizes[best.element])
    rotations = query.angles[best.query] - stored.angles[best.element]
    scale_bin = np.clip(np.floor(log_scales / SCALE_BIN) + SCALE_BINS // 2, 0, SCALE_BINS - 1)
    rotation_bin = np.floor(rotations / (2 * np.pi) * ROTATION_BINS) % ROTATION_BINS
    shape = gallery.element_count, SCALE_BINS, ROTATION_BINS
    bins = gallery.elements[best.element] * SCALE_BINS + scale_bin.astype(int)
    bins = bins * ROTATION_BINS + rotation_bin.astype(int)
    sums = np.bincount(bins, best.weights, int(np.prod(shape)))
    votes = sums.astype(np.float64).reshape(shape)  # without matches, bincount returns integers
    votes[:, :-1] += votes[:, 1:].copy()
    return np.asarray((votes + np.roll(votes, -1, axis=2)).max(axis=(1, 2), initial=0))


def _cells(descriptors: Floats, vocabulary: Vocabulary) -> Ints:
    """Return the cell of each descriptor, [n]."""
    cells = np.empty(len(descriptors), np.int64)
    for start in range(0, len(descriptors), ROWS_PER_BLOCK):
        block = slice(start, start + ROWS_PER_BLOCK)
        cells[block] = _cell_scores(descriptors[block], vocabulary).argmax(axis=1)
    return cells


def _cell_scores(descriptors: Floats, vocabulary: Vocabulary) -> Floats:
    """Return the proximity of each cell to each descriptor, higher is nearer, [n, cells]."""
    centers = vocabulary.landmarks[:: len(vocabulary.landmarks) // CELLS][:CELLS]
    scores = descriptors @ (2 * centers.T)
    scores -= _squared_norms(centers)
    return scores


def _squared_norms(descriptors: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", descriptors, descriptors), np.float32)


def _ranks_in_groups(groups: Ints) -> Ints:
    """Number the members of each group from 0; the members of a group are contiguous."""
    rows = np.arange(len(groups))
    is_start = np.concatenate([[True], groups[1:] != groups[:-1]]) if len(groups) else rows > 0
    ranks: Ints = rows - np.maximum.accumulate(np.where(is_start, rows, 0))
    return ranks
