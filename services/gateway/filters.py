"""Which images to take: the tree that a filter string means."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from imagesearch_services.gateway.model import Category, TagValue


class Operator(enum.Enum):
    """Comparisons, each as it is written in a filter string."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    HAS = ":"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One field against one value; no value where the operator is HAS.

    Values are as the Catalog keeps the field: a category is its number, a time is seconds since
    1970 UTC.
    """

    field: str
    operator: Operator
    value: TagValue | None = None


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every member holds."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one member holds."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The member does not hold."""

    filter: Filter


Filter = Comparison | AllOf | AnyOf | Not


def conjunction(*filters: Filter | None) -> Filter | None:
    """Join filters by AND, leaving out those that are not there."""
    members = tuple(member for member in filters if member is not None)
    if len(members) > 1:
        return AllOf(members)
    return members[0] if members else None


def category_is(category: Category | None) -> Filter | None:
    """Only images of this category; None: of any."""
    return Comparison("category", Operator.EQUAL, int(category)) if category else None


def entity_is(entity_id: str) -> Filter:
    return Comparison("entity_id", Operator.EQUAL, entity_id)


def not_image(image_id: str) -> Filter:
    return Not(Comparison("image_id", Operator.EQUAL, image_id))
