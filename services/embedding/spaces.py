"""Vector spaces: each the embedding of one model, or those of two that are joined.

Two embeddings a, b of the same crop, of unit length each, are joined as

    [a, sqrt(weight) · b] / sqrt(1 + weight)

so that the cosine of two joined ones is the weighted mean of the cosines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.embedding.models import Model, ModelRegistry
from imagesearch_services.embedding.subjects.labels import Labels

Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A model, and how it is shown a region."""

    model: Model
    margin: float
    """Of the region's sides, kept around it."""

    @property
    def key(self) -> tuple[str, str, float]:
        """Tells it apart from others."""
        return self.model.name, self.model.version, self.margin


@dataclass(frozen=True, slots=True)
class Space:
    """A vector space that regions can be embedded into."""

    own: ModelInput
    """The model that the space is named after."""
    joined: ModelInput | None
    weight: float
    """Of the joined model's cosine."""
    labels: Labels | None
    """What the model tells of a region besides."""

    @property
    def name(self) -> str:
        return self.own.model.space

    @property
    def dimensions(self) -> int:
        joined = self.joined.model.dimensions if self.joined else 0
        return self.own.model.dimensions + joined

    @property
    def inputs(self) -> list[ModelInput]:
        return [self.own] if self.joined is None else [self.own, self.joined]

    def vectors(self, own: Embeddings, joined: Embeddings | None) -> Embeddings:
        """Join embeddings of unit length, [regions, dimensions of each] → [regions, dimensions]."""
        if joined is None:
            return own
        both = np.concatenate([own, math.sqrt(self.weight) * joined], axis=1)
        return (both / math.sqrt(1 + self.weight)).astype(np.float32)


def resolve(registry: ModelRegistry, names: Sequence[str]) -> list[Space]:
    """Return the spaces of these names, in their order.

    Raises:
        ServiceError: MODEL_SERVER_UNAVAILABLE or MODEL_NOT_SERVED.
    """
    return [space_of(registry, model) for model in registry.resolve(names)]


def space_of(registry: ModelRegistry, model: Model) -> Space:
    """Return the space that a model embeds into.

    Raises:
        ServiceError: MODEL_SERVER_UNAVAILABLE or MODEL_NOT_SERVED, also where the model to join
            with does not serve.
    """
    parameters = model.parameters
    margin = float(parameters.get("crop_margin", "0"))
    weight = float(parameters["joined_weight"]) if "joined_with" in parameters else 0.0
    labels = Labels.from_parameters(parameters) if "categories" in parameters else None
    joined = None
    if "joined_with" in parameters:
        (other,) = registry.resolve([parameters["joined_with"]])
        joined = ModelInput(other, margin)
    return Space(ModelInput(model, margin), joined, weight, labels)


def served(registry: ModelRegistry) -> list[tuple[Model, int]]:
    """Return the models that serve, with the dimensions of their spaces; 0: they do not embed.

    Raises:
        ServiceError: MODEL_SERVER_UNAVAILABLE.
    """
    found = []
    for model in registry.models():
        if not model.dimensions:
            found.append((model, 0))
            continue
        try:
            found.append((model, space_of(registry, model).dimensions))
        except ServiceError:
            continue  # what it joins with is not there (yet)
    return found
