"""What a product model says of a crop besides its embedding, in the words of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import Attribute, Category

KIND = "kind"
"""The attribute that tells garments apart; the others depend on it."""
SLEEVE_LENGTH = "sleeve_length"

MIN_KIND_SCORE = 0.5
"""Confidence from which a kind is told, and from which it settles the category."""
MIN_ATTRIBUTE_SCORE = 0.6
"""Confidence from which another attribute is told: of two values chance gives a half."""
MIN_CLOTHING_SCORE = 0.1
"""Probability of all categories of garments together, from which a crop that the parser did not see
is clothing. Most of the probability always lies on the thousand classes that are no goods: 95 % of
garments are above .14 and 95 % of groceries under .06."""
MIN_CATEGORY_SCORE = 0.06
"""Probability from which other goods have a category: animals, textures and rockets stay under it,
95 % of groceries are above."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Told:
    """What a crop shows."""

    category: Category
    score: float
    """Confidence of the category, 0 to 1: among garments, or among the categories of goods."""
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """Names of a product model's outputs `attributes` and `categories`."""

    attributes: Mapping[str, tuple[str, ...]]
    """Values of each attribute; the probabilities of its values stand together and sum to one."""
    category_of_kind: Mapping[str, Category]
    sleeved_kinds: frozenset[str]
    categories: tuple[Category, ...]

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Labels:
        """Read them off a model's configuration.

        Raises:
            KeyError: a parameter is missing.
            ValueError: two of them do not fit together.
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

    def tell(
        self,
        attributes: Floats,
        categories: Floats,
        *,
        clothing: Category | None = None,
        is_alone: bool = True,
    ) -> Told:
        """Say what a crop shows.

        Args:
            attributes: probabilities, [values of all attributes].
            categories: probabilities, [categories].
            clothing: category by the parser; None: it saw none, or was not asked.
            is_alone: nothing else is worn in the picture, so that the kind of garment knows the
                category better than the parser.
        """
        by_category = self._by_category(attributes)
        kind, kind_score = self._best(KIND, attributes)
        if clothing is None:
            worn = [category in by_category for category in self.categories]
            if categories[worn].sum() < MIN_CLOTHING_SCORE:
                return self._goods(categories)
            category = max(by_category, key=lambda each: by_category[each])
        elif is_alone and clothing in by_category and kind_score >= MIN_KIND_SCORE:
            category = self.category_of_kind[kind]
        else:
            category = clothing
        told = []
        if self.category_of_kind[kind] == category and kind_score >= MIN_KIND_SCORE:
            told.append(Attribute(KIND, kind, kind_score))
            if kind in self.sleeved_kinds and SLEEVE_LENGTH in self.attributes:
                value, score = self._best(SLEEVE_LENGTH, attributes)
                if score >= MIN_ATTRIBUTE_SCORE:
                    told.append(Attribute(SLEEVE_LENGTH, value, score))
        return Told(category, by_category.get(category, 0.0), tuple(told))

    def _goods(self, categories: Floats) -> Told:
        """Tell the category of what is no clothing."""
        known = np.array([category is not Category.OTHER for category in self.categories])
        scores = np.where(known, categories, 0.0)
        best, all_known = int(scores.argmax()), float(scores.sum())
        if scores[best] < MIN_CATEGORY_SCORE:
            return Told(Category.OTHER, 1.0 - all_known, ())
        return Told(self.categories[best], float(scores[best]) / all_known, ())

    def _by_category(self, attributes: Floats) -> dict[Category, float]:
        """Probability of each category of garments, by those of its kinds."""
        found: dict[Category, float] = {}
        for kind, score in zip(self.attributes[KIND], self._scores(KIND, attributes), strict=True):
            category = self.category_of_kind[kind]
            found[category] = found.get(category, 0.0) + float(score)
        return found

    def _best(self, name: str, attributes: Floats) -> tuple[str, float]:
        scores = self._scores(name, attributes)
        best = int(scores.argmax())
        return self.attributes[name][best], float(scores[best])

    def _scores(self, name: str, attributes: Floats) -> Floats:
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
