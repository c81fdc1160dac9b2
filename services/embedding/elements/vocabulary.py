"""Assigns visual words and codes to local features, by parameters that are learned and committed.

Descriptors are projected to 64 components: principal components, then a rotation that equalizes
their variance.

- The word of a descriptor is the pair of the nearest centers of its two halves (Babenko and
  Lempitsky, "The inverted multi-index", CVPR 2012): two books of a thousand centers make a million
  words. A large vocabulary is needed to distinguish many elements by words alone (Sivic and
  Zisserman, "Video Google", ICCV 2003).
- The mean weight of each word in photos is learned, too: a word that occurs in every photo carries
  no information (inverse document frequency).
- The code of a descriptor takes 16 bytes and approximates it (Jégou et al., "Product quantization
  for nearest neighbor search", PAMI 2011).
- The noise distance of a descriptor is its distance to the nearest landmarks (cluster centers of
  descriptors in general). A match beyond it is no evidence. It is the same for every library, so
  that evidence is comparable.

A different vocabulary needs a new version, since libraries store words and codes.
`services/models/elements/vocabulary.py` learns it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.elements.shapes import ShapeBook
from imagesearch_services.embedding.features.local_features import BINS, DIMENSIONS, DIRECTIONS

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]

FILE = Path(__file__).parent / "vocabulary.npz"
"""Archive of the learned parameters."""

NAME = "rootsift_words"
VERSION = "2"
SPACE = f"{NAME}@{VERSION}"
"""Vector space of the bags of words, as stored in libraries."""

PHOTO_WEIGHT_STEPS = 128
"""Quantization steps of the square root of a word's mean weight in photos."""
NOISE_RANK = 8
"""Rank of the nearest landmark whose distance is the noise distance."""
NOISE_GROUPS = 64
"""Number of groups of landmarks, of equal size."""
ROWS_PER_BLOCK = 512
"""Number of descriptors that are compared with all centers at once, which bounds the memory."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Learned parameters of the visual words and codes."""

    mean: Floats
    """Mean of RootSIFT descriptors, [128]."""
    projection: Floats
    """Projection of descriptors to components, [128, components]."""
    halves: Floats
    """Centers of the first and the second half of the components, [2, centers, components of a
    half]."""
    landmarks: Floats
    """Projected landmarks, [landmarks, components]."""
    codebooks: Floats
    """Product quantization codebooks, [parts, 256, components of a part]."""
    photo_weights: Floats
    """Mean weight of each word in the bag of a photo, [words]."""
    inversion: tuple[Floats, Floats]
    """Matrix [components, components] and offset [components] that approximate the projected
    descriptor of the negative picture."""
    shapes: ShapeBook
    """Learned parameters of shapes."""

    @classmethod
    def load(cls, file: Path = FILE) -> Vocabulary:
        """Read the parameters from a NumPy archive."""
        with np.load(file, allow_pickle=False) as stored:
            mean = stored["mean"].astype(np.float32)
            projection = stored["projection"].astype(np.float32)
            return cls(
                mean,
                projection,
                stored["halves"].astype(np.float32),
                stored["landmarks"].astype(np.float32) * stored["landmark_scale"],
                stored["codebooks"].astype(np.float32),
                (stored["commonness_roots"].astype(np.float32) / PHOTO_WEIGHT_STEPS) ** 2,
                _inversion(mean, projection),
                ShapeBook.load(),
            )

    @property
    def components(self) -> int:
        """Number of components of a projected descriptor."""
        return int(self.projection.shape[1])

    @property
    def word_count(self) -> int:
        """Number of words."""
        return int(self.halves.shape[1]) ** 2

    @property
    def code_bytes(self) -> int:
        """Length of a descriptor's code, in bytes."""
        return int(self.codebooks.shape[0])

    def project(self, descriptors: Floats) -> Floats:
        """Project RootSIFT descriptors, [n, 128] → [n, components]."""
        return np.asarray((descriptors - self.mean) @ self.projection, np.float32)

    def inverted(self, projected: Floats) -> Floats:
        """Approximate the descriptors of the same keypoints in the negative picture.

        In the negative, every gradient is reversed, and so is the direction of the keypoint.

        Args:
            projected: [n, components].

        Returns:
            [n, components].
        """
        matrix, offset = self.inversion
        return projected @ matrix + offset

    def words(self, projected: Floats, count: int) -> tuple[Ints, Floats]:
        """Return the nearest words of each descriptor.

        Args:
            projected: descriptors, [n, components].
            count: words per descriptor.

        Returns:
            Words, nearest first, and squared distances to them; both [n, count].
        """
        centers = self.halves.shape[1]
        # The `count` nearest pairs consist of the `count` nearest centers of each half.
        first, second = (
            _nearest(half, book, count)
            for half, book in zip(np.split(projected, 2, axis=1), self.halves, strict=True)
        )
        pairs = first[0][:, :, None] * centers + second[0][:, None, :]
        squared = first[1][:, :, None] + second[1][:, None, :]
        shape = len(projected), count**2
        pairs, squared = pairs.reshape(shape), squared.reshape(shape)
        order = np.argsort(squared, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(pairs, order, 1), np.take_along_axis(squared, order, 1)

    def noise(self, projected: Floats) -> Floats:
        """Return the squared noise distances, beyond which a match is no evidence, [n].

        The distance to the landmark of rank `NOISE_RANK` is approximated: only the nearest landmark
        of each group is ranked. The nearest landmarks are hardly ever in the same group, and
        sorting all landmarks would take five times as long.

        Args:
            projected: descriptors, [n, components].
        """
        squared = np.empty(len(projected), np.float32)
        # The groups are interleaved, so that their minima are elementwise minima of whole rows.
        interleaved = self.landmarks.reshape(NOISE_GROUPS, -1, self.components).transpose(1, 0, 2)
        landmarks = interleaved.reshape(-1, self.components)
        landmark_norms = np.einsum("ij,ij->i", landmarks, landmarks)
        for start in range(0, len(projected), ROWS_PER_BLOCK):
            block = projected[start : start + ROWS_PER_BLOCK]
            distances = block @ (-2 * landmarks.T)
            distances += landmark_norms
            nearest = distances.reshape(len(block), -1, NOISE_GROUPS).min(axis=1)
            ranked = np.partition(nearest, NOISE_RANK - 1)[:, NOISE_RANK - 1]
            norms = np.einsum("ij,ij->i", block, block)
            squared[start : start + ROWS_PER_BLOCK] = ranked + norms
        return np.maximum(squared, 0)

    def encode(self, projected: Floats) -> Codes:
        """Quantize projected descriptors to codes, [n, components] → [n, code bytes]."""
        parts = np.split(projected, self.code_bytes, axis=1)
        nearest = [
            _nearest(part, book, 1)[0][:, 0]
            for part, book in zip(parts, self.codebooks, strict=True)
        ]
        return np.stack(nearest, axis=1).astype(np.uint8)

    def decode(self, codes: Codes) -> Floats:
        """Approximate projected descriptors by their codes, [n, code bytes] → [n, components]."""
        parts = np.arange(self.code_bytes)
        approximations: Floats = self.codebooks[parts, codes].reshape(len(codes), self.components)
        return approximations


def _inversion(mean: Floats, projection: Floats) -> tuple[Floats, Floats]:
    """Return the matrix and offset of `Vocabulary.inversion`.

    In the negative, the direction of a keypoint is reversed, so that the spatial bins of its
    descriptor are rotated by 180 degrees.
    """
    bins = np.arange(DIMENSIONS).reshape(BINS, BINS, DIRECTIONS)
    rotated = bins[::-1, ::-1].ravel()
    unprojection = np.linalg.pinv(projection)
    matrix = unprojection[:, rotated] @ projection
    offset: Floats = ((mean[rotated] - mean) @ projection).astype(np.float32)
    return matrix.astype(np.float32), offset


def _nearest(points: Floats, centers: Floats, count: int) -> tuple[Ints, Floats]:
    """Find the nearest centers of each point.

    Args:
        points: [n, components].
        centers: [m, components].
        count: number of centers per point.

    Returns:
        Rows of the centers, nearest first, and squared distances to them; both [n, count].
    """
    center_norms = np.einsum("ij,ij->i", centers, centers)
    rows = np.empty((len(points), count), np.int64)
    squared = np.empty((len(points), count), np.float32)
    for start in range(0, len(points), ROWS_PER_BLOCK):
        block = points[start : start + ROWS_PER_BLOCK]
        distances = block @ (-2 * centers.T)
        distances += center_norms
        block_rows = np.arange(len(block))
        norms = np.einsum("ij,ij->i", block, block)
        for rank in range(count):
            nearest = distances.argmin(axis=1)
            rows[start + block_rows, rank] = nearest
            squared[start + block_rows, rank] = np.maximum(
                distances[block_rows, nearest] + norms, 0
            )
            distances[block_rows, nearest] = np.inf
    return rows, squared
