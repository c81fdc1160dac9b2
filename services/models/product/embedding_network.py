"""The network of the product embedding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from imagesearch_services.models.efficientnet_lite2.backbone import Backbone
from imagesearch_services.models.product.garment_heads import (
    CHANNELS,
    COARSE_CELLS,
    FINE_CELLS,
    global_average,
    head_features,
    power_normalize,
)
from imagesearch_services.models.product.garment_kinds import CATEGORY_OF_KIND
from imagesearch_services.models.product.projection import PROJECTED, Projection

SIDE_PX = 384
"""Side of the input, in pixels."""
KIND_SHARE = 1.0
"""Weight of the dot product of kind probabilities relative to the cosine of the other components.

Chosen by three-fold cross-validation on the training garments: the gain in precision of the kind by
a higher weight does not justify the loss of similarity of appearance.
"""
CLOTHING_FROM, CLOTHING_SURE = 0.05, 0.15
"""Probabilities of clothing, by ImageNet's classes, from which kinds count, and count in full.

The embedding of a carton of milk must not depend on its resemblance to a shirt. 95 % of groceries
are below the first limit, and 95 % of the training garments above the second.
"""
IMAGENET_CATEGORIES: dict[str, list[int]] = json.loads(
    Path(__file__).with_name("imagenet_categories.json").read_text()
)
"""Classes of ImageNet in each category."""
IMAGENET_CLASSES = 1000


class Extractor(torch.nn.Module):
    """uint8 RGB [N, 384, 384, 3] → averages over parts of two maps, [N, COARSE + FINE].

    The parts are thirds of height and width of the last map, and sixths of the map of stride 16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(SIDE_PX, SIDE_PX)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        _, fine, _, coarse = self.backbone(image)
        pool = torch.nn.functional.avg_pool2d
        parts = [
            pool(coarse, coarse.shape[-1] // COARSE_CELLS),
            pool(fine, fine.shape[-1] // FINE_CELLS),
        ]
        return torch.cat([part.flatten(1) for part in parts], 1)


class Clothing(torch.nn.Module):
    """Categories of a crop and its weight of kinds, from the classes of ImageNet."""

    def __init__(self, classifier: torch.nn.Linear) -> None:
        super().__init__()
        self.classifier = classifier
        members = torch.zeros(IMAGENET_CLASSES, len(IMAGENET_CATEGORIES) + 1)
        for column, classes in enumerate(IMAGENET_CATEGORIES.values()):
            members[classes, column] = 1
        members[:, -1] = 1 - members.sum(1)
        self.register_buffer("members", members)
        worn = set(CATEGORY_OF_KIND.values())
        self.worn = [index for index, name in enumerate(IMAGENET_CATEGORIES) if name in worn]

    def forward(self, average: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the probabilities of the categories, OTHER last, and the weight of kinds (0–1)."""
        categories = self.classifier(average).softmax(1) @ self.members
        clothing = categories[:, self.worn].sum(1, keepdim=True)
        weight = (clothing - CLOTHING_FROM) / (CLOTHING_SURE - CLOTHING_FROM)
        return categories, weight.clamp(0, 1)


class Product(torch.nn.Module):
    """uint8 RGB [N, 384, 384, 3] → `embedding`, `attributes` and `categories`.

    `embedding` [N, 256] is the projection, unit length, followed by the probabilities of KINDS,
    multiplied by the weight of kinds (`Clothing`). `attributes` [N, 12] are the probabilities of
    KINDS, then of SLEEVES. `categories` [N, 14] are sums of the probabilities of ImageNet's
    classes, in the order of imagenet_categories.json, OTHER last.
    """

    def __init__(
        self, projection: Projection, kind: torch.nn.Linear, sleeve: torch.nn.Linear
    ) -> None:
        super().__init__()
        self.extractor = Extractor()
        self.project = torch.nn.Linear(CHANNELS, PROJECTED)
        matrix = torch.from_numpy(projection.matrix.astype(np.float32))
        mean = torch.from_numpy(projection.mean.astype(np.float32))
        self.project.weight.data = matrix.T.contiguous()
        self.project.bias.data = -(mean @ matrix)
        self.kind, self.sleeve = kind, sleeve
        self.clothing = Clothing(self.extractor.backbone.network._fc)  # noqa: SLF001 not public

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pooled = self.extractor(image)
        average, features = global_average(pooled), head_features(pooled)
        kind, sleeve = self.kind(features).softmax(1), self.sleeve(features).softmax(1)
        categories, kind_weight = self.clothing(average)
        projected = torch.nn.functional.normalize(self.project(power_normalize(average)))
        embedding = [projected, kind_weight * kind * KIND_SHARE**0.5]
        return torch.cat(embedding, 1), torch.cat([kind, sleeve], 1), categories


def imagenet_classifier() -> torch.nn.Linear:
    """Return EfficientNet-Lite2's own classifier."""
    classifier: torch.nn.Linear = Backbone(SIDE_PX, SIDE_PX).network._fc  # noqa: SLF001 not public
    return classifier
