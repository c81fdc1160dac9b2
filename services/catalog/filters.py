"""Filter trees: the conditions of the contract, and the nodes that engines evaluate.

A request's filter consists of conditions on fields by name. `filter_binding.bind` checks it
against the fields of a library and rewrites it into matches, ranges and existence tests, which
all engines evaluate in the same way. Conditions that hold for every entry, or for no entry, are
folded away, so an engine never gets an empty list, whose meaning differs between engines.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from imagesearch_services.catalog.model import FieldType
from imagesearch_services.common.types import TagValue

BASE_FIELDS: Mapping[str, FieldType] = {
    "image_id": FieldType.STRING,
    "entity_id": FieldType.STRING,
    "sha256": FieldType.STRING,
    "category": FieldType.INTEGER,
    "width": FieldType.INTEGER,
    "height": FieldType.INTEGER,
    "size_bytes": FieldType.INTEGER,
    "sharpness": FieldType.FLOAT,
    "create_time": FieldType.FLOAT,
    "update_time": FieldType.FLOAT,
}
"""Fields that every library has, all with a payload index."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}\Z")
"""Valid names of tags and attributes."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class Operator(enum.Enum):
    """Operators of the contract."""

    EQUAL = enum.auto()
    NOT_EQUAL = enum.auto()
    LESS = enum.auto()
    LESS_OR_EQUAL = enum.auto()
    GREATER = enum.auto()
    GREATER_OR_EQUAL = enum.auto()
    HAS = enum.auto()


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of a request; `value` is None for HAS."""

    field: str
    operator: Operator
    value: TagValue | None


@dataclass(frozen=True, slots=True)
class Match:
    """The field, or a member of it if it is a list, equals one of the values."""

    field: str
    values: tuple[str, ...] | tuple[int, ...] | tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The number is within the bounds; None: no bound."""

    field: str
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True)
class Exists:
    """The entry has the field."""

    field: str


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every member holds."""

    members: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one member holds."""

    members: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The member does not hold."""

    member: Filter


Filter = Condition | Match | Range | Exists | AllOf | AnyOf | Not
"""A node of a tree; conditions occur only before binding."""

Bound = Filter | bool
"""A tree without conditions, or a constant: True matches every entry, False matches none."""


def all_of(*members: Bound) -> Bound:
    """Return the conjunction, with constants folded."""
    if any(member is False for member in members):
        return False
    rest = tuple(member for member in members if not isinstance(member, bool))
    if not rest:
        return True
    return rest[0] if len(rest) == 1 else AllOf(rest)


def any_of(*members: Bound) -> Bound:
    """Return the disjunction, with constants folded."""
    if any(member is True for member in members):
        return True
    rest = tuple(member for member in members if not isinstance(member, bool))
    if not rest:
        return False
    return rest[0] if len(rest) == 1 else AnyOf(rest)


def negate(member: Bound) -> Bound:
    """Return the negation, with constants and double negations folded."""
    if isinstance(member, bool):
        return not member
    return member.member if isinstance(member, Not) else Not(member)
