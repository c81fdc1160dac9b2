"""Which images to take: the tree that a filter string means."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from dataclasses import dataclass

from imagesearch_services.common.errors import FieldViolation, Reason, ServiceError
from imagesearch_services.common.types import Category, TagValue


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
    position: int = dataclasses.field(default=0, compare=False)
    """Where it stands in the filter string, characters from 0."""


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


def comparisons(tree: Filter) -> Iterator[Comparison]:
    """Give the comparisons of a tree in the order in which they are written."""
    match tree:
        case AllOf(members) | AnyOf(members):
            for member in members:
                yield from comparisons(member)
        case Not(member):
            yield from comparisons(member)
        case Comparison():
            yield tree


def filter_error(position: int, description: str, *, field: str = "filter") -> ServiceError:
    """Say what is wrong with a filter string, and where."""
    return ServiceError(
        Reason.FILTER_INVALID,
        f"{field}, character {position}: {description}",
        metadata={"position": str(position)},
        fields=[FieldViolation(field, f"character {position}: {description}")],
    )


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
