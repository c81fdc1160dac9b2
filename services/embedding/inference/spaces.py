"""Resolves vector spaces: the embedding of one model, or the joined embeddings of two models.

Two embeddings a and b of the same crop, each of unit length, are joined to

    [a, sqrt(weight) · b] / sqrt(1 + weight)

so that the cosine of two joined embeddings is the weighted mean of the cosines of a and of b.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.embedding.inference.models import Model
from imagesearch_services.embedding.inference.registry import ModelRegistry
from imagesearch_services.embedding.subjects.labels import Labels

Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """A model, and the margin around its input regions."""

    model: Model
    margin: float
    """Margin around a region, as a share of the region's sides."""

    @property
    def key(self) -> tuple[str, str, float]:
        """Key of the input, unique within a call."""
        return self.model.name, self.model.version, self.margin


@dataclass(frozen=True, slots=True)
class Space:
    """A vector space that regions can be embedded into."""

    own: ModelInput
    """The model that the space is named after."""
    joined: ModelInput | None
    """The joined model; None if the space has one model."""
    weight: float
    """Weight of the joined model's cosine."""

    @property
    def name(self) -> str:
        return self.own.model.space

    @property
    def labels(self) -> Labels | None:
        """Names of the values by which the model labels a region; None if it labels no regions."""
        return self.own.model.labels

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
    """Return the spaces with these names, in the order of the names.

    Raises:
        ServiceError: MODEL_SERVER_UNAVAILABLE or MODEL_NOT_SERVED.
    """
    return [space_of(registry, model) for model in registry.resolve(names)]


def space_of(registry: ModelRegistry, model: Model) -> Space:
    """Return the space that a model embeds into.

    Raises:
        ServiceError: MODEL_SERVER_UNAVAILABLE or MODEL_NOT_SERVED, for the joined model.
    """
    own = ModelInput(model, model.crop_margin)
    if model.joined is None:
        return Space(own, None, 0.0)
    (other,) = registry.resolve([model.joined.space])
    return Space(own, ModelInput(other, model.crop_margin), model.joined.weight)


def served(registry: ModelRegistry) -> list[tuple[Model, int]]:
    """Return the served models with the dimensions of their spaces; 0 for a model without a space.

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
            continue  # the joined model is not served, or not yet
    return found
