"""What a garment is: features that keep where things are, linear heads on them, their measures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

KINDS = (
    "dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt",
    "t-shirt",
)  # fmt: skip
SLEEVES = ("short", "long")
SLEEVE_OF_KIND = {"t-shirt": 0, "longsleeve": 1}
CATEGORY_OF_KIND = {
    "dress": "DRESS", "hat": "ACCESSORIES", "longsleeve": "TOPS", "outwear": "TOPS",
    "pants": "BOTTOMS", "shirt": "TOPS", "shoes": "SHOES", "shorts": "BOTTOMS",
    "skirt": "BOTTOMS", "t-shirt": "TOPS",
}  # fmt: skip

CHANNELS = 1280
COARSE_CELLS = 3
"""A side, of the last map: averages over thirds of the height and the width."""
FINE_CHANNELS = 120
FINE_CELLS = 6
"""A side, of the map of stride 16."""
COARSE = CHANNELS * COARSE_CELLS**2
FINE = FINE_CHANNELS * FINE_CELLS**2
POWER = 0.7
"""Tames channels that fire for one strong cue."""
FINE_SHARE = 0.5
"""Weight of the product of two pictures' fine maps beside that of their coarse ones."""
DECAY = 1e-5
SMOOTHING = 0.05
"""Of the labels: photos of the same shirt are called a shirt and a longsleeve. This, the decay,
FINE_SHARE and the cells were chosen by three folds of the learned photos."""
ITERATIONS = 150

Array = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Garments:
    """Photos of one garment each."""

    pooled: torch.Tensor
    """What `Extractor` gives, [photos, COARSE + FINE]."""
    kinds: Indices
    is_held_out: npt.NDArray[np.bool_]


def tame(average: torch.Tensor) -> torch.Tensor:
    """Unit length, to a power, unit length; signs are kept."""
    scaled = torch.nn.functional.normalize(average)
    return torch.nn.functional.normalize(scaled.sign() * scaled.abs() ** POWER)


def overall(pooled: torch.Tensor) -> torch.Tensor:
    """Averages of the last map, [N, CHANNELS]."""
    return pooled[:, :COARSE].reshape(-1, CHANNELS, COARSE_CELLS**2).mean(2)


def looks(pooled: torch.Tensor) -> torch.Tensor:
    """What the heads take: a sleeve and a hem are told by where they end, [N, COARSE + FINE]."""
    return torch.cat([tame(pooled[:, :COARSE]), tame(pooled[:, COARSE:]) * FINE_SHARE**0.5], 1)


def train_heads(clothes: Garments) -> tuple[torch.nn.Linear, torch.nn.Linear]:
    """Trains linear heads for kind and sleeve length and prints how they do on held-out photos."""
    features, held_out = looks(clothes.pooled), clothes.is_held_out
    kind = _train_head(features[~held_out], clothes.kinds[~held_out], len(KINDS))
    told, kinds = _told(kind, features[held_out]), clothes.kinds[held_out]
    categories = np.array([CATEGORY_OF_KIND[name] for name in KINDS])
    same_category = (categories[told] == categories[kinds]).mean()
    print(f"kind: {(told == kinds).mean():.3f} right on {len(kinds)} held-out photos, "
          f"{int((~held_out).sum())} learned; category by kind: {same_category:.3f}")  # fmt: skip
    sleeved = np.isin(clothes.kinds, [KINDS.index(name) for name in SLEEVE_OF_KIND])
    sleeves = np.array([SLEEVE_OF_KIND.get(KINDS[index], 0) for index in clothes.kinds])
    learned, asked = sleeved & ~held_out, sleeved & held_out
    sleeve = _train_head(features[learned], sleeves[learned], len(SLEEVES))
    right = (_told(sleeve, features[asked]) == sleeves[asked]).mean()
    print(f"sleeve length of t-shirts and longsleeves: {right:.3f} right on {asked.sum()} "
          f"held-out photos, {learned.sum()} learned")  # fmt: skip
    return kind, sleeve


def probabilities(head: torch.nn.Linear, pooled: torch.Tensor) -> Array:
    """Of a head's classes, [N, classes]."""
    with torch.inference_mode():
        found: Array = head(looks(pooled)).softmax(1).numpy()
    return found


def precision_of_kind(vectors: Array, clothes: Garments) -> float:
    """Share of the five nearest of each held-out photo, among the others, that are of its kind."""
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
        fits = torch.nn.functional.cross_entropy(head(features), target, label_smoothing=SMOOTHING)
        value: torch.Tensor = fits + DECAY * head.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return head


def _told(head: torch.nn.Linear, features: torch.Tensor) -> Indices:
    with torch.inference_mode():
        told: Indices = head(features).argmax(1).numpy()
    return told
