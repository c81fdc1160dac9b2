"""How close an embedding lies to pictures in general, measured on a fixed set of them.

Some pictures resemble many others (a garment on a wooden floor, a page of text), so that the same
cosine is a copy for one query and chance for another. Its similarity to a background set tells
which: the score normalisation of "A Self-Supervised Descriptor for Image Copy Detection" (Pizzi
et al., CVPR 2022) and of the Image Similarity Challenge 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

BUILT_IN = Path(__file__).parent / "background_vectors"

SKIPPED = 2
"""Nearest pictures left out: the query's original may itself be in the set, and a near repeat."""

AVERAGED = 5
"""Nearest pictures after those whose similarities are averaged."""

MAX_SIMILARITY = 0.95
"""So that what is left between it and 1 can still tell a copy."""

Floats = npt.NDArray[np.float32]


class Background:
    """The background set of one model."""

    def __init__(self, vectors: npt.NDArray[np.int8]) -> None:
        """Take embeddings of unrelated pictures, int8 [pictures, dimensions] of any scale."""
        rows = vectors.astype(np.float32)
        self._vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def similarities(self, embeddings: Floats) -> Floats:
        """Return the mean cosine to the nearest pictures of the set, in [0, 1).

        Args:
            embeddings: unit length, float32 [regions, dimensions].

        Returns:
            float32 [regions].
        """
        cosines = embeddings @ self._vectors.T
        last = SKIPPED + AVERAGED
        nearest = -np.partition(-cosines, range(last), axis=1)[:, SKIPPED:last]
        clipped: Floats = np.clip(nearest.mean(axis=1), 0.0, MAX_SIMILARITY)
        return clipped


def load_backgrounds(folder: Path = BUILT_IN) -> Mapping[str, Background]:
    """Read every set in the folder, by vector space: `NAME@VERSION.npy`."""
    return {path.stem: Background(np.load(path)) for path in sorted(folder.glob("*.npy"))}
