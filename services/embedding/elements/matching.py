"""Which features of a query resemble which features of stored elements.

Comparing every feature of a query with every one of hundreds of candidates would take most of a
search. Both are sorted into cells around landmarks, and only what lies in cells near a query's
feature is compared with it (Jégou et al., "Product quantization for nearest neighbor search", PAMI
2011, section IV: an inverted file).

Pairs that show one object agree in how much larger and by how much turned the query's is. How many
agree so tells, for every element at once, where a look at places pays (Jégou et al., "Hamming
embedding and weak geometric consistency for large scale image search", ECCV 2008).
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
CELLS_TRIED = 16
"""Nearest ones of a query's feature: they hold 98 % of the pairs that mean something."""
MAX_MATCHES_A_FEATURE = 16
"""Of a query's feature with one element: repeating patterns have many that are as near, and would
leave room for no other features."""
ROWS_A_TURN = 8192
"""Features that are sorted into cells at once: bounds the memory."""
SCALE_BIN = float(np.log(1.8))
SCALE_BINS = 16
TURN_BINS = 9
"""Of 40 degrees each."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Pairs of features of a query and one element, or several, best first."""

    query: Ints
    element: Ints
    weights: Floats
    """How much nearer than what means nothing, 0 to 1."""

    def __len__(self) -> int:
        return len(self.query)

    def take(self, rows: Ints | Bools | slice) -> Matches:
        return Matches(self.query[rows], self.element[rows], self.weights[rows])


@dataclass(frozen=True, slots=True)
class Gallery:
    """Features of several elements side by side."""

    count: int
    """Of elements."""
    owners: Ints
    """Which element each is of, ascending, [n]."""
    places: Ints
    """Which of its element's each is, [n]."""
    keypoints: Keypoints
    descriptors: Floats
    """[n, components]."""
    cells: Ints
    """[n]."""

    @classmethod
    def of(cls, elements: Sequence[StoredElement], vocabulary: Vocabulary) -> Gallery:
        counts = [len(element.keypoints) for element in elements]
        owners = np.repeat(np.arange(len(elements)), counts)
        starts = np.cumsum([0, *counts])[:-1]
        codes = [element.codes for element in elements]
        nothing = np.empty((0, vocabulary.code_bytes), np.uint8)
        descriptors = vocabulary.decode(np.concatenate([nothing, *codes]))
        stored = [element.keypoints for element in elements]
        empty = np.empty(0, np.float32)
        return cls(
            len(elements),
            owners,
            np.arange(len(owners)) - starts[owners],
            Keypoints(
                np.concatenate([np.empty((0, 2), np.float32), *(one.points for one in stored)]),
                np.concatenate([empty, *(one.sizes for one in stored)]),
                np.concatenate([empty, *(one.angles for one in stored)]),
            ),
            descriptors,
            _cells(descriptors, vocabulary),
        )

    def only(self, kept: Bools) -> Gallery:
        """Leave out elements; the others keep their numbers."""
        rows = kept[self.owners]
        points, sizes, angles = self.keypoints.points, self.keypoints.sizes, self.keypoints.angles
        return replace(
            self,
            owners=self.owners[rows],
            places=self.places[rows],
            keypoints=Keypoints(points[rows], sizes[rows], angles[rows]),
            descriptors=self.descriptors[rows],
            cells=self.cells[rows],
        )


@dataclass(frozen=True, slots=True)
class GalleryMatches:
    """Pairs of features of a query and several elements."""

    matches: Matches
    """By element, best first; `element` are rows of the gallery."""
    bounds: Ints
    """Where the pairs of each element begin, [elements + 1]."""
    agreement: Doubles
    """How much of what matches agrees in scale and turn, [elements]."""
    gallery: Gallery

    def of(self, element: int) -> Matches:
        """Give those of one element, in its own rows."""
        own = self.matches.take(slice(*self.bounds[element : element + 2]))
        return replace(own, element=self.gallery.places[own.element])


def match(query: QueryFeatures, gallery: Gallery, vocabulary: Vocabulary) -> GalleryMatches:
    """Pair features by likeness."""
    found = _near(query, gallery, vocabulary)
    owners = gallery.owners[found.element]
    groups = owners * len(query.keypoints) + found.query
    order = np.argsort(-found.weights, kind="stable")
    order = order[np.argsort(groups[order], kind="stable")]
    places = _places(groups[order])
    best = order[places == 0]
    agreement = _agreement(query.keypoints, found.take(best), gallery)
    kept = order[places < MAX_MATCHES_A_FEATURE]
    kept = kept[np.argsort(-found.weights[kept], kind="stable")]
    kept = kept[np.argsort(owners[kept], kind="stable")]
    bounds = np.searchsorted(owners[kept], np.arange(gallery.count + 1))
    return GalleryMatches(found.take(kept), bounds, agreement, gallery)


def _near(query: QueryFeatures, gallery: Gallery, vocabulary: Vocabulary) -> Matches:
    """Pair what is nearer than what means nothing."""
    if not len(query.keypoints) or not len(gallery.owners):
        nothing = np.empty(0, np.int64)
        return Matches(nothing, nothing, np.empty(0, np.float32))
    order = np.argsort(gallery.cells, kind="stable")
    bounds = np.searchsorted(gallery.cells[order], np.arange(CELLS + 1))
    stored = gallery.descriptors[order]
    # Noise less the squared distance as one product: 2 q·s - |s|² + (noise - |q|²).
    ones = np.ones((len(stored), 1), np.float32)
    right = np.hstack([2 * stored, -_squared(stored)[:, None], ones])
    slack = query.noise - _squared(query.projected)
    left = np.column_stack([query.projected, np.ones(len(slack), np.float32), slack])
    cells = np.argpartition(-_scores_of_cells(query.projected, vocabulary), CELLS_TRIED, axis=1)
    tried = np.zeros((CELLS, len(left)), bool)
    tried[cells[:, :CELLS_TRIED], np.arange(len(left))[:, None]] = True
    pairs: list[tuple[Ints, Ints, Floats]] = []
    for looked_for, start, end in zip(tried, bounds[:-1], bounds[1:], strict=True):
        rows = np.flatnonzero(looked_for)
        nearer = left[rows] @ right[start:end].T
        flat = np.flatnonzero(nearer > 0)
        first, second = np.divmod(flat, max(end - start, 1))
        pairs.append((rows[first], order[start + second], nearer.ravel()[flat]))
    rows, columns, nearer = (np.concatenate(column) for column in zip(*pairs, strict=True))
    noise = np.maximum(query.noise[rows], 1e-9)
    weights = 1 - np.sqrt(np.maximum(noise - nearer, 0) / noise)
    return Matches(rows, columns, weights.astype(np.float32))


def _agreement(query: Keypoints, best: Matches, gallery: Gallery) -> Doubles:
    """Add up the weights in bins of scale and turn; give the fullest four together."""
    stored = gallery.keypoints
    scales = np.log(query.sizes[best.query] / stored.sizes[best.element])
    turns = query.angles[best.query] - stored.angles[best.element]
    scale = np.clip(np.floor(scales / SCALE_BIN) + SCALE_BINS // 2, 0, SCALE_BINS - 1)
    turn = np.floor(turns / (2 * np.pi) * TURN_BINS) % TURN_BINS
    shape = gallery.count, SCALE_BINS, TURN_BINS
    bins = (gallery.owners[best.element] * SCALE_BINS + scale.astype(int)) * TURN_BINS
    counted = np.bincount(bins + turn.astype(int), best.weights, int(np.prod(shape)))
    votes = counted.astype(np.float64).reshape(shape)  # whole numbers where there is nothing
    votes[:, :-1] += votes[:, 1:].copy()
    return np.asarray((votes + np.roll(votes, -1, axis=2)).max(axis=(1, 2), initial=0))


def _cells(descriptors: Floats, vocabulary: Vocabulary) -> Ints:
    """Give the cell that each lies in, [n]."""
    cells = np.empty(len(descriptors), np.int64)
    for start in range(0, len(descriptors), ROWS_A_TURN):
        part = slice(start, start + ROWS_A_TURN)
        cells[part] = _scores_of_cells(descriptors[part], vocabulary).argmax(axis=1)
    return cells


def _scores_of_cells(descriptors: Floats, vocabulary: Vocabulary) -> Floats:
    """Tell how near each cell is, higher is nearer, [n, cells]."""
    middles = vocabulary.landmarks[:: len(vocabulary.landmarks) // CELLS][:CELLS]
    scores = descriptors @ (2 * middles.T)
    scores -= _squared(middles)
    return scores


def _squared(descriptors: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", descriptors, descriptors), np.float32)


def _places(groups: Ints) -> Ints:
    """Number the members of each group; members stand together."""
    rows = np.arange(len(groups))
    begins = np.concatenate([[True], groups[1:] != groups[:-1]]) if len(groups) else rows > 0
    places: Ints = rows - np.maximum.accumulate(np.where(begins, rows, 0))
    return places
