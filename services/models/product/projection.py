"""The linear projection of the product embedding, fitted in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PROJECTED = 246
"""Number of components of the projection. In an embedding, the components of the garment kinds come
after them."""
SHRINKAGE = 0.9
"""Shrinkage of the covariance towards a multiple of the identity; .85 to .97 perform equally."""
DOMAIN_WEIGHT = 1.0
"""Weight of the covariance of the steps from shelf photos to catalogue pictures, relative to the
covariance within products."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Projection:
    """`(features - mean) @ matrix`: principal axes, then whitening within products."""

    mean: Array
    matrix: Array

    def __call__(self, features: Array) -> Array:
        return unit((features - self.mean) @ self.matrix)


def unit(vectors: npt.NDArray[np.floating]) -> Array:
    """Scale vectors to unit length."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float32)


def fit(
    features: Array, products: npt.NDArray[np.intp], is_catalogue: npt.NDArray[np.bool_]
) -> Projection:
    """Fit a projection that reduces the weight of directions that vary within a product.

    Args:
        features: Features of pictures, [N, D].
        products: Product of each picture, [N].
        is_catalogue: Whether each picture is the catalogue picture of its product, [N].
    """
    mean = features.mean(axis=0)
    gram = (features - mean) @ (features - mean).T
    values, vectors = np.linalg.eigh(gram.astype(np.float64))
    values, vectors = values[::-1][:PROJECTED], vectors[:, ::-1][:, :PROJECTED]
    axes = (features - mean).T @ (vectors / np.sqrt(np.maximum(values, 1e-9)))
    points = (features - mean) @ axes
    within, steps = [], []
    for product in np.unique(products):
        own = points[products == product]
        within.append(own - own.mean(axis=0))
        is_own_catalogue = is_catalogue[products == product]
        steps.append(own[is_own_catalogue].mean(axis=0) - own[~is_own_catalogue].mean(axis=0))
    spread = covariance(np.concatenate(within)) + DOMAIN_WEIGHT * covariance(np.stack(steps))
    isotropic = np.trace(spread) / len(spread) * np.eye(len(spread))
    values, vectors = np.linalg.eigh((1 - SHRINKAGE) * spread + SHRINKAGE * isotropic)
    matrix = axes @ (vectors / np.sqrt(values))
    # The scale is arbitrary: the mean length becomes 1.
    matrix /= np.linalg.norm((features - mean) @ matrix, axis=1).mean()
    return Projection(mean.astype(np.float32), matrix.astype(np.float32))


def covariance(deviations: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    return deviations.T @ deviations / len(deviations)
