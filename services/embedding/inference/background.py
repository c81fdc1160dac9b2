"""Computes background similarities: how similar an embedding is to a set of unrelated pictures.

Some pictures resemble many others (a garment on a wooden floor, a page of text), so that the same
cosine indicates a copy for one query and chance for another. The similarity to a background set
normalizes scores, as in "A Self-Supervised Descriptor for Image Copy Detection" (Pizzi et al.,
CVPR 2022) and the Image Similarity Challenge 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

BUILT_IN = Path(__file__).parent / "background_vectors"
"""Folder of the background sets that are part of the distribution."""

SKIPPED_COUNT = 2
"""Number of nearest pictures that are skipped, since the set may contain the query's original and a
near-duplicate of it."""

AVERAGED_COUNT = 5
"""Number of next nearest pictures, whose similarities are averaged."""

MAX_SIMILARITY = 0.95
"""Upper bound of the background similarity; the range up to 1 still separates copies."""

Floats = npt.NDArray[np.float32]


class Background:
    """The background set of one model."""

    def __init__(self, vectors: npt.NDArray[np.int8]) -> None:
        """Build the set from embeddings of unrelated pictures, int8 [pictures, dimensions].

        Their lengths do not matter.
        """
        rows = vectors.astype(np.float32)
        self._vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def similarities(self, embeddings: Floats) -> Floats:
        """Return the mean cosine to the nearest pictures of the set, in [0, 0.95].

        Args:
            embeddings: unit length, float32 [regions, dimensions].

        Returns:
            float32 [regions].
        """
        cosines = embeddings @ self._vectors.T
        end = SKIPPED_COUNT + AVERAGED_COUNT
        nearest = -np.partition(-cosines, range(end), axis=1)[:, SKIPPED_COUNT:end]
        clipped: Floats = np.clip(nearest.mean(axis=1), 0.0, MAX_SIMILARITY)
        return clipped


def load_backgrounds(folder: Path = BUILT_IN) -> Mapping[str, Background]:
    """Read the background sets in a folder, by vector space, from files `NAME@VERSION.npy`."""
    return {path.stem: Background(np.load(path)) for path in sorted(folder.glob("*.npy"))}
