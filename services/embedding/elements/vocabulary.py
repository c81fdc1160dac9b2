"""Visual words and short codes of local features, learnt once and committed.

A descriptor is projected to 64 components (principal components, then a rotation that spreads their
variance).

- Its words are pairs of the nearest centres of its two halves (Babenko and Lempitsky, "The inverted
  multi-index", CVPR 2012): a million words of two books with a thousand centres each. The library
  must be able to tell very many elements apart by words alone (Sivic and Zisserman, "Video Google",
  ICCV 2003).
- How common a word is in photos is learnt, too: what is in every photo tells nothing of any.
- Its code, from which it can be approximated again, takes 16 bytes (Jégou et al., "Product
  quantization for nearest neighbor search", PAMI 2011).
- How near it lies to landmarks, centres of descriptors in general, tells from which distance on a
  likeness means nothing: the same for every library, so that evidence is comparable.

Another vocabulary needs another version, since libraries keep words and codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.elements.shapes import ShapeBook
from imagesearch_services.embedding.local_features import BINS, DIMENSIONS, DIRECTIONS

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]

FILE = Path(__file__).parent / "vocabulary.npz"

NAME = "rootsift_words"
VERSION = "2"
SPACE = f"{NAME}@{VERSION}"
"""Of the bags of words, as libraries name it."""

COMMONNESS_STEPS = 128
"""Of the root of how common a word is, as it is kept."""
NOISE_NEIGHBOUR = 8
"""Which nearest landmark tells the distance that means nothing."""
NOISE_GROUPS = 64
"""Groups of landmarks, of the same size each."""
ROWS_A_TURN = 512
"""Descriptors compared with all centres at once: bounds the memory."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What was learnt."""

    mean: Floats
    """Of descriptors, [128]."""
    projection: Floats
    """[128, components]."""
    halves: Floats
    """Centres of the first and the second half, [2, centres, components of a half]."""
    landmarks: Floats
    """[landmarks, components]."""
    codebooks: Floats
    """[parts, 256, components of a part]."""
    commonness: Floats
    """Weight of each word in the bag of a photo, on average, [words]."""
    inversion: tuple[Floats, Floats]
    """Matrix and offset that make a projected descriptor that of the negative picture."""
    shapes: ShapeBook
    """What was learnt about shapes in one color."""

    @classmethod
    def load(cls, file: Path = FILE) -> Vocabulary:
        with np.load(file, allow_pickle=False) as stored:
            mean = stored["mean"].astype(np.float32)
            projection = stored["projection"].astype(np.float32)
            return cls(
                mean,
                projection,
                stored["halves"].astype(np.float32),
                stored["landmarks"].astype(np.float32) * stored["landmark_scale"],
                stored["codebooks"].astype(np.float32),
                (stored["commonness_roots"].astype(np.float32) / COMMONNESS_STEPS) ** 2,
                _inversion(mean, projection),
                ShapeBook.load(),
            )

    @property
    def components(self) -> int:
        return int(self.projection.shape[1])

    @property
    def word_count(self) -> int:
        return int(self.halves.shape[1]) ** 2

    @property
    def code_bytes(self) -> int:
        return int(self.codebooks.shape[0])

    def project(self, descriptors: Floats) -> Floats:
        """Project RootSIFT descriptors, [n, 128] → [n, components]."""
        return np.asarray((descriptors - self.mean) @ self.projection, np.float32)

    def inverted(self, projected: Floats) -> Floats:
        """Give about what the same places of the negative picture would be described as.

        There every gradient, and so the keypoint itself, points the other way.
        """
        matrix, offset = self.inversion
        return projected @ matrix + offset

    def words(self, projected: Floats, count: int) -> tuple[Ints, Floats]:
        """Find the nearest words.

        Args:
            projected: descriptors, [n, components].
            count: words of each.

        Returns:
            Words, nearest first, and squared distances to them; both [n, count].
        """
        centres = self.halves.shape[1]
        # None of the nearest pairs has a centre behind so many nearer ones of its half.
        first, second = (
            _nearest(half, book, count)
            for half, book in zip(np.split(projected, 2, axis=1), self.halves, strict=True)
        )
        pairs = first[0][:, :, None] * centres + second[0][:, None, :]
        squared = first[1][:, :, None] + second[1][:, None, :]
        shape = len(projected), count**2
        pairs, squared = pairs.reshape(shape), squared.reshape(shape)
        order = np.argsort(squared, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(pairs, order, 1), np.take_along_axis(squared, order, 1)

    def noise(self, projected: Floats) -> Floats:
        """Give the squared distances from which on a likeness means nothing, [n].

        Landmarks are taken in groups, and of each the nearest one: the next ones of all are hardly
        ever in one group, and sorting all of them would take five times as long.
        """
        squared = np.empty(len(projected), np.float32)
        # Groups are put across, so that their minima are taken of whole rows.
        across = self.landmarks.reshape(NOISE_GROUPS, -1, self.components).transpose(1, 0, 2)
        landmarks = across.reshape(-1, self.components)
        norms = np.einsum("ij,ij->i", landmarks, landmarks)
        for start in range(0, len(projected), ROWS_A_TURN):
            part = projected[start : start + ROWS_A_TURN]
            distances = part @ (-2 * landmarks.T)
            distances += norms
            nearest = distances.reshape(len(part), -1, NOISE_GROUPS).min(axis=1)
            place = NOISE_NEIGHBOUR - 1
            own = np.einsum("ij,ij->i", part, part)
            squared[start : start + ROWS_A_TURN] = np.partition(nearest, place)[:, place] + own
        return np.maximum(squared, 0)

    def encode(self, projected: Floats) -> Codes:
        """Shorten projected descriptors, [n, components] → [n, code bytes]."""
        parts = np.split(projected, self.code_bytes, axis=1)
        nearest = [
            _nearest(part, book, 1)[0][:, 0]
            for part, book in zip(parts, self.codebooks, strict=True)
        ]
        return np.stack(nearest, axis=1).astype(np.uint8)

    def decode(self, codes: Codes) -> Floats:
        """Approximate projected descriptors, [n, code bytes] → [n, components]."""
        parts = np.arange(self.code_bytes)
        approximations: Floats = self.codebooks[parts, codes].reshape(len(codes), self.components)
        return approximations


def _inversion(mean: Floats, projection: Floats) -> tuple[Floats, Floats]:
    bins = np.arange(DIMENSIONS).reshape(BINS, BINS, DIRECTIONS)
    turned = bins[::-1, ::-1].ravel()
    back = np.linalg.pinv(projection)
    matrix = back[:, turned] @ projection
    shift: Floats = ((mean[turned] - mean) @ projection).astype(np.float32)
    return matrix.astype(np.float32), shift


def _nearest(points: Floats, centres: Floats, count: int) -> tuple[Ints, Floats]:
    """Find the few nearest centres of points, nearest first, and the squared distances to them."""
    norms = np.einsum("ij,ij->i", centres, centres)
    rows = np.empty((len(points), count), np.int64)
    squared = np.empty((len(points), count), np.float32)
    for start in range(0, len(points), ROWS_A_TURN):
        part = points[start : start + ROWS_A_TURN]
        distances = part @ (-2 * centres.T)
        distances += norms
        every = np.arange(len(part))
        own = np.einsum("ij,ij->i", part, part)
        for place in range(count):
            nearest = distances.argmin(axis=1)
            rows[start + every, place] = nearest
            squared[start + every, place] = np.maximum(distances[every, nearest] + own, 0)
            distances[every, nearest] = np.inf
    return rows, squared
