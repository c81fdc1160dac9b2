"""Linear heads for the kind and the sleeve length of a garment, on features with positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from imagesearch_services.models.product.garment_kinds import (
    CATEGORY_OF_KIND,
    KINDS,
    SLEEVE_OF_KIND,
    SLEEVES,
)

CHANNELS = 1280
"""Channels of the last map."""
COARSE_CELLS = 3
"""Number of cells per side over which the last map is averaged."""
FINE_CHANNELS = 120
"""Channels of the map of stride 16."""
FINE_CELLS = 6
"""Number of cells per side over which the map of stride 16 is averaged."""
COARSE = CHANNELS * COARSE_CELLS**2
"""Number of averages of the last map."""
FINE = FINE_CHANNELS * FINE_CELLS**2
"""Number of averages of the map of stride 16."""
POWER = 0.7
"""Exponent of the power normalization, which reduces the weight of single strong channels."""
FINE_SHARE = 0.5
"""Weight of the dot product of fine maps relative to the dot product of coarse maps."""
DECAY = 1e-5
"""L2 penalty of the heads."""
SMOOTHING = 0.05
"""Label smoothing, because the labels "shirt" and "longsleeve" occur on photos of one garment.

Smoothing, decay, FINE_SHARE and the cells were chosen by three-fold cross-validation on the
training photos.
"""
ITERATIONS = 150
"""Maximum number of iterations of L-BFGS."""

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Garments:
    """Photos of a single garment each."""

    pooled: torch.Tensor
    """Output of `Extractor`, [photos, COARSE + FINE]."""
    kinds: Indices
    """Index of each garment's kind in `KINDS`, [photos]."""
    is_held_out: npt.NDArray[np.bool_]


def power_normalize(average: torch.Tensor) -> torch.Tensor:
    """Scale to unit length, raise to `POWER` keeping signs, and scale to unit length again."""
    scaled = torch.nn.functional.normalize(average)
    return torch.nn.functional.normalize(scaled.sign() * scaled.abs() ** POWER)


def global_average(pooled: torch.Tensor) -> torch.Tensor:
    """Return the averages of the whole last map, [N, CHANNELS]."""
    return pooled[:, :COARSE].reshape(-1, CHANNELS, COARSE_CELLS**2).mean(2)


def head_features(pooled: torch.Tensor) -> torch.Tensor:
    """Return the input features of the heads, [N, COARSE + FINE].

    They keep positions, because kinds and sleeves differ in where sleeves and hems end.
    """
    return torch.cat(
        [
            power_normalize(pooled[:, :COARSE]),
            power_normalize(pooled[:, COARSE:]) * FINE_SHARE**0.5,
        ],
        1,
    )


def train_heads(clothes: Garments) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """Train linear heads for kind and sleeve length; print their accuracy on held-out photos."""
    features, held_out = head_features(clothes.pooled), clothes.is_held_out
    kind = _train_head(features[~held_out], clothes.kinds[~held_out], len(KINDS))
    predicted, kinds = _predicted(kind, features[held_out]), clothes.kinds[held_out]
    categories = np.array([CATEGORY_OF_KIND[name] for name in KINDS])
    same_category = (categories[predicted] == categories[kinds]).mean()
    print(f"kind: accuracy {(predicted == kinds).mean():.3f} on {len(kinds)} held-out photos, "
          f"{int((~held_out).sum())} training photos; category by kind: "
          f"{same_category:.3f}")  # fmt: skip
    sleeved = np.isin(clothes.kinds, [KINDS.index(name) for name in SLEEVE_OF_KIND])
    sleeves = np.array([SLEEVE_OF_KIND.get(KINDS[index], 0) for index in clothes.kinds])
    trains, tests = sleeved & ~held_out, sleeved & held_out
    sleeve = _train_head(features[trains], sleeves[trains], len(SLEEVES))
    right = (_predicted(sleeve, features[tests]) == sleeves[tests]).mean()
    print(f"sleeve length of t-shirts and longsleeves: accuracy {right:.3f} on {tests.sum()} "
          f"held-out photos, {trains.sum()} training photos")  # fmt: skip
    return kind, sleeve


def probabilities(head: torch.nn.Linear, pooled: torch.Tensor) -> Array:
    """Return the probabilities of a head's classes, [N, classes]."""
    with torch.inference_mode():
        result: Array = head(head_features(pooled)).softmax(1).numpy()
    return result


def precision_at_5(vectors: Array, clothes: Garments) -> float:
    """Return the precision at 5: the share of the five nearest held-out photos of the same kind."""
    held_out = clothes.is_held_out
    cosines = vectors[held_out] @ vectors[held_out].T
    np.fill_diagonal(cosines, -1)
    nearest = np.argsort(-cosines, axis=1)[:, :5]
    kinds = clothes.kinds[held_out]
    return float((kinds[nearest] == kinds[:, None]).mean())


def _train_head(features: torch.Tensor, classes: Indices, count: int) -> torch.nn.Linear:
    head = torch.nn.Linear(features.shape[1], count)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    target = torch.from_numpy(classes)
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        cross_entropy = torch.nn.functional.cross_entropy(
            head(features), target, label_smoothing=SMOOTHING
        )
        value: torch.Tensor = cross_entropy + DECAY * head.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return head


def _predicted(head: torch.nn.Linear, features: torch.Tensor) -> Indices:
    with torch.inference_mode():
        predicted: Indices = head(features).argmax(1).numpy()
    return predicted
