"""Derives the category and the attributes of crops from a product model's probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import Attribute, Category

KIND = "kind"
"""Attribute for the kind of a garment, which determines its category and its other attributes."""
SLEEVE_LENGTH = "sleeve_length"
"""Attribute for the length of the sleeves."""

MIN_KIND_SCORE = 0.5
"""Minimum probability of a kind for it to be returned and to decide the category."""
MIN_ATTRIBUTE_SCORE = 0.6
"""Minimum probability of another attribute's value; of two values, chance gives one half."""
MIN_CLOTHING_SCORE = 0.1
"""Minimum total probability of the categories of garments for a crop to be clothing if the parser
found no garment. Most of the probability is always on the thousand classes that are not goods: 95 %
of garments are above .14, 95 % of groceries below .06."""
MIN_CATEGORY_SCORE = 0.06
"""Minimum probability of a category other than clothing: 95 % of groceries are above it; animals,
textures and rockets are below it."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Classification:
    """Category and attributes of a crop."""

    category: Category
    score: float
    """Probability of the category among garments or among the categories of goods, 0 to 1."""
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """Names of the values in a product model's outputs `attributes` and `categories`."""

    attributes: Mapping[str, tuple[str, ...]]
    """Values of each attribute. The output holds the values of each attribute contiguously, and
    their probabilities sum to 1."""
    category_of_kind: Mapping[str, Category]
    """Category of each kind of garment."""
    sleeved_kinds: frozenset[str]
    """Kinds of garments that have a sleeve length."""
    categories: tuple[Category, ...]
    """Categories in the order of the output `categories`."""

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Labels:
        """Read the labels from a model's configuration.

        Raises:
            KeyError: a parameter is missing.
            ValueError: parameters are inconsistent, or a category is unknown.
        """
        attributes = {}
        for group in parameters["attributes"].split(";"):
            name, _, values = group.partition("=")
            attributes[name] = tuple(values.split(","))
        return cls(
            attributes,
            dict(zip(attributes[KIND], _categories(parameters["category_of_kind"]), strict=True)),
            frozenset(parameters["sleeved_kinds"].split(",")),
            tuple(_categories(parameters["categories"])),
        )

    def classify(
        self,
        attributes: Floats,
        categories: Floats,
        *,
        garment_category: Category | None = None,
        is_alone: bool = True,
    ) -> Classification:
        """Classify a crop.

        Args:
            attributes: probabilities, float32 [values of all attributes].
            categories: probabilities, float32 [categories].
            garment_category: category of the garment that the parser found; None if it found no
                garment or did not run.
            is_alone: whether the picture has no other garment. The kind of a single garment
                predicts its category better than the parser does.
        """
        by_category = self._garment_probabilities(attributes)
        kind, kind_score = self._likeliest(KIND, attributes)
        if garment_category is None:
            is_garment = [category in by_category for category in self.categories]
            if categories[is_garment].sum() < MIN_CLOTHING_SCORE:
                return self._classify_goods(categories)
            category = max(by_category, key=lambda candidate: by_category[candidate])
        elif is_alone and garment_category in by_category and kind_score >= MIN_KIND_SCORE:
            category = self.category_of_kind[kind]
        else:
            category = garment_category
        found = []
        if self.category_of_kind[kind] == category and kind_score >= MIN_KIND_SCORE:
            found.append(Attribute(KIND, kind, kind_score))
            if kind in self.sleeved_kinds and SLEEVE_LENGTH in self.attributes:
                value, score = self._likeliest(SLEEVE_LENGTH, attributes)
                if score >= MIN_ATTRIBUTE_SCORE:
                    found.append(Attribute(SLEEVE_LENGTH, value, score))
        return Classification(category, by_category.get(category, 0.0), tuple(found))

    def _classify_goods(self, categories: Floats) -> Classification:
        """Classify a crop that is not clothing."""
        is_known = np.array([category is not Category.OTHER for category in self.categories])
        scores = np.where(is_known, categories, 0.0)
        best, total = int(scores.argmax()), float(scores.sum())
        if scores[best] < MIN_CATEGORY_SCORE:
            return Classification(Category.OTHER, 1.0 - total, ())
        return Classification(self.categories[best], float(scores[best]) / total, ())

    def _garment_probabilities(self, attributes: Floats) -> dict[Category, float]:
        """Return the probability of each category of garments, summed over its kinds."""
        by_category: dict[Category, float] = {}
        for kind, score in zip(self.attributes[KIND], self._scores(KIND, attributes), strict=True):
            category = self.category_of_kind[kind]
            by_category[category] = by_category.get(category, 0.0) + float(score)
        return by_category

    def _likeliest(self, name: str, attributes: Floats) -> tuple[str, float]:
        """Return the likeliest value of an attribute and its probability."""
        scores = self._scores(name, attributes)
        best = int(scores.argmax())
        return self.attributes[name][best], float(scores[best])

    def _scores(self, name: str, attributes: Floats) -> Floats:
        """Return the probabilities of an attribute's values, [values]."""
        start = 0
        for other, values in self.attributes.items():
            if other == name:
                return attributes[start : start + len(values)]
            start += len(values)
        raise KeyError(name)


def _categories(text: str) -> list[Category]:
    """Read comma-separated names of categories.

    Raises:
        ValueError: a name is unknown.
    """
    names = text.split(",")
    unknown = [name for name in names if name not in Category.__members__]
    if unknown:
        raise ValueError(f"unknown categories: {', '.join(unknown)}")
    return [Category[name] for name in names]
