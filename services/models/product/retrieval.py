"""Cross-validation of retrieval by the product embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from imagesearch_services.models.product.embedding_network import (
    KIND_SHARE,
    Clothing,
    imagenet_classifier,
)
from imagesearch_services.models.product.garment_heads import (
    CHANNELS,
    Garments,
    global_average,
    power_normalize,
    precision_at_5,
    probabilities,
)
from imagesearch_services.models.product.projection import Array, Projection, fit, unit

SSCD_WEIGHT = 0.3
"""Weight of SSCD's cosine relative to that of the embedding."""
DEPTHS = (1, 5, 10)
"""Numbers of results at which recall is measured."""


@dataclass(frozen=True)
class Groceries:
    """Pictures of products other than clothing."""

    pooled: torch.Tensor
    """Output of `Extractor`, [pictures, COARSE + FINE]."""
    features: Array
    """Power-normalized averages of the last map, [pictures, CHANNELS]."""
    products: npt.NDArray[np.intp]
    """Product of each picture, [pictures]."""
    is_catalogue: npt.NDArray[np.bool_]
    sscd: Array | None
    """SSCD's unit vectors, [pictures, 512]."""

    def fit(self, is_chosen: npt.NDArray[np.bool_]) -> Projection:
        """Fit the projection to some of the pictures."""
        return fit(self.features[is_chosen], self.products[is_chosen], self.is_catalogue[is_chosen])


@dataclass(frozen=True)
class KindParts:
    """The components of embeddings that the kinds of garment determine, [pictures, kinds]."""

    always: Array
    """Components without the weight of kinds."""
    gated: Array
    """Components multiplied by the weight of kinds, as in `Product`."""

    @classmethod
    def of(cls, kind: torch.nn.Linear, pooled: torch.Tensor) -> KindParts:
        """Compute the parts.

        Args:
            kind: Head of the kinds.
            pooled: Output of `Extractor`.
        """
        weighted = probabilities(kind, pooled) * KIND_SHARE**0.5
        with torch.inference_mode():
            _, clothing = Clothing(imagenet_classifier())(global_average(pooled))
        return cls(weighted, weighted * clothing.numpy())


def joined(projected: Array, kinds: Array) -> Array:
    """Return embeddings as `Product` does, scaled to unit length."""
    return unit(np.concatenate([projected, kinds], axis=1))


@dataclass(frozen=True)
class Retrieval:
    """Results of each variant of the embedding, with an array or a value per fold."""

    hits: dict[str, list[npt.NDArray[np.bool_]]]
    """Whether the right catalogue picture has each rank, [queries, catalogue pictures]."""
    precisions: dict[str, list[float]]
    """Precision at 5 of the kind of garment."""

    def report(self) -> None:
        """Print both tables."""
        print("shelf photo -> 55 catalogue pictures, products not used in training, five folds")
        for variant, parts in self.hits.items():
            is_right = np.concatenate(parts)
            recalls = "  ".join(
                f"R@{depth} {is_right[:, :depth].any(axis=1).mean():.3f}" for depth in DEPTHS
            )
            print(f"  {variant:27} {recalls}  n={len(is_right)}")
        print("garments, precision at 5 of the kind among held-out photos, mean of the folds")
        for variant, values in self.precisions.items():
            print(f"  {variant:27} {np.mean(values):.3f}")


def measure_retrieval(
    groceries: Groceries, clothes: Garments, folds: list[list[str]], kinds: Sequence[KindParts]
) -> Retrieval:
    """Search the catalogue pictures with shelf photos, by cross-validation over products.

    Args:
        groceries: All products.
        clothes: Garments; each held-out photo is searched among the other held-out photos.
        folds: Names of the products of each fold.
        kinds: Components of the kinds, of groceries and of garments.
    """
    raw = Projection(np.zeros(CHANNELS, np.float32), np.eye(CHANNELS, dtype=np.float32))
    names = sorted({name for fold in folds for name in fold})
    features = groceries.features, power_normalize(global_average(clothes.pooled)).numpy()
    result = Retrieval({}, {})
    for fold in folds:
        is_held_out = np.isin(groceries.products, [names.index(name) for name in fold])
        is_query = is_held_out & ~groceries.is_catalogue
        trained = groceries.fit(~is_held_out)
        projected = [trained(rows) for rows in features]
        variants = {
            "untrained": [raw(rows) for rows in features],
            "trained": projected,
            "trained, kinds of all": [
                joined(rows, kind.always) for rows, kind in zip(projected, kinds, strict=True)
            ],
            "trained, kinds": [
                joined(rows, kind.gated) for rows, kind in zip(projected, kinds, strict=True)
            ],
        }
        cosines = {
            variant: vectors[is_query] @ vectors[groceries.is_catalogue].T
            for variant, (vectors, _) in variants.items()
        }
        if groceries.sscd is not None:
            copies = groceries.sscd[is_query] @ groceries.sscd[groceries.is_catalogue].T
            cosines |= {
                f"{variant}, SSCD": own + SSCD_WEIGHT * copies for variant, own in cosines.items()
            }
            cosines["SSCD alone"] = copies
        for variant, scores in cosines.items():
            ranked = np.argsort(-scores, axis=1)
            is_right = ranked == groceries.products[is_query][:, None]
            result.hits.setdefault(variant, []).append(is_right)
        for variant, (_, vectors) in variants.items():
            precision = precision_at_5(vectors, clothes)
            result.precisions.setdefault(variant, []).append(precision)
    return result
