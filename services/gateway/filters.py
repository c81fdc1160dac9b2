"""Filters of images: syntax trees of filter strings."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from dataclasses import dataclass

from imagesearch_services.common.errors import FieldViolation, Reason, ServiceError
from imagesearch_services.common.types import Category, TagValue


class Operator(enum.Enum):
    """Comparison operators, as written in filter strings."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="
    HAS = ":"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Comparison of a field with a value; `value` is None for the operator HAS.

    Values are as the Catalog stores them: a category is its number, a time is seconds since 1970
    UTC.
    """

    field: str
    operator: Operator
    value: TagValue | None = None
    position: int = dataclasses.field(default=0, compare=False)
    """Position in the filter string, characters from 0."""


@dataclass(frozen=True, slots=True)
class AllOf:
    """Conjunction: all members match."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Disjunction: at least one member matches."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Negation: the member does not match."""

    filter: Filter


Filter = Comparison | AllOf | AnyOf | Not


def comparisons(tree: Filter) -> Iterator[Comparison]:
    """Yield the comparisons of a tree in the order of the filter string."""
    match tree:
        case AllOf(members) | AnyOf(members):
            for member in members:
                yield from comparisons(member)
        case Not(member):
            yield from comparisons(member)
        case Comparison():
            yield tree


def filter_error(position: int, description: str, *, field: str = "filter") -> ServiceError:
    """Return an error about a filter string, with its position in characters from 0."""
    return ServiceError(
        Reason.FILTER_INVALID,
        f"{field}, character {position}: {description}",
        metadata={"position": str(position)},
        fields=[FieldViolation(field, f"character {position}: {description}")],
    )


def conjunction(*filters: Filter | None) -> Filter | None:
    """Return the conjunction of the filters that are not None."""
    members = tuple(member for member in filters if member is not None)
    if len(members) > 1:
        return AllOf(members)
    return members[0] if members else None


def category_is(category: Category | None) -> Filter | None:
    """Return a filter for images of a category; None: no filter."""
    return Comparison("category", Operator.EQUAL, int(category)) if category else None


def entity_is(entity_id: str) -> Filter:
    return Comparison("entity_id", Operator.EQUAL, entity_id)


def not_image(image_id: str) -> Filter:
    return Not(Comparison("image_id", Operator.EQUAL, image_id))
