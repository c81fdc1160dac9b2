"""k-means clustering."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CHUNK = 512
"""Number of points whose distances are computed at a time."""

Floats = npt.NDArray[np.float32]


def k_means(points: Floats, count: int, iterations: int, seed: int = 0) -> Floats:
    """Return `count` cluster centers, by Lloyd's algorithm.

    The center of an empty cluster is moved to a random point.
    """
    rng = np.random.default_rng(seed)
    centers = points[rng.choice(len(points), count, replace=False)].copy()
    for _ in range(iterations):
        nearest = _nearest(points, centers)
        order = np.argsort(nearest, kind="stable")
        sizes = np.bincount(nearest, minlength=count)
        running = np.concatenate([np.zeros((1, points.shape[1])), points[order].cumsum(axis=0)])
        ends = np.cumsum(sizes)
        sums = running[ends] - running[ends - sizes]
        centers = sums / np.maximum(sizes, 1)[:, None]
        empty = np.flatnonzero(sizes == 0)
        centers[empty] = points[rng.choice(len(points), len(empty))]
    return np.asarray(centers, np.float32)


def _nearest(points: Floats, centers: Floats) -> npt.NDArray[np.int64]:
    norms = np.einsum("ij,ij->i", centers, centers)
    return np.concatenate(
        [
            (norms - 2 * (points[start : start + CHUNK] @ centers.T)).argmin(axis=1)
            for start in range(0, len(points), CHUNK)
        ]
    )
