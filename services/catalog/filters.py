"""Filters: the typed tree of the contract, and what an engine is asked.

A filter comes as conditions on fields by name. `bind` checks it against the fields of a
library and rewrites it into conditions that every engine has in the same meaning: matches,
ranges, existence. Conditions that hold for all or for no entry are folded away on the way,
so an engine never sees an empty list, on whose meaning engines differ.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from imagesearch_services.catalog.model import FieldType
from imagesearch_services.common.errors import ServiceError, field_error
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
"""Names of tags and attributes."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
EXACT_IN_DOUBLE = 2**53
"""Integers up to this size are exact as double precision numbers (IEEE 754)."""


class Operator(enum.Enum):
    """Comparisons of the contract."""

    EQUAL = enum.auto()
    NOT_EQUAL = enum.auto()
    LESS = enum.auto()
    LESS_OR_EQUAL = enum.auto()
    GREATER = enum.auto()
    GREATER_OR_EQUAL = enum.auto()
    HAS = enum.auto()


ORDER = {
    Operator.LESS,
    Operator.LESS_OR_EQUAL,
    Operator.GREATER,
    Operator.GREATER_OR_EQUAL,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison as it was asked for; `value` is None for HAS."""

    field: str
    operator: Operator
    value: TagValue | None


@dataclass(frozen=True, slots=True)
class Match:
    """The field, or one of its values if it is a list, is one of these."""

    field: str
    values: tuple[str, ...] | tuple[int, ...] | tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The number lies between the bounds; None: no bound."""

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
"""Conditions stand only in unbound trees."""

Bound = Filter | bool
"""A tree without conditions, or a constant: True takes every entry, False none."""


def bind(
    tree: Filter | None, tag_types: Mapping[str, FieldType], attribute_names: frozenset[str]
) -> Bound:
    """Check a filter against the fields of a library and rewrite it for an engine.

    Args:
        tree: as asked; None takes every entry.
        tag_types: types of the library's tags. A tag that it never had is no error: no entry
            has it.
        attribute_names: attributes that its entries have.

    Raises:
        ServiceError: FIELD_INVALID for an unknown field, a value of another type than the
            field's, or an operator that the type does not have.
    """
    return _Binder(tag_types, attribute_names).bind(True if tree is None else tree)


def all_of(*members: Bound) -> Bound:
    """Join by "and", folding constants."""
    if any(member is False for member in members):
        return False
    rest = tuple(member for member in members if not isinstance(member, bool))
    if not rest:
        return True
    return rest[0] if len(rest) == 1 else AllOf(rest)


def any_of(*members: Bound) -> Bound:
    """Join by "or", folding constants."""
    if any(member is True for member in members):
        return True
    rest = tuple(member for member in members if not isinstance(member, bool))
    if not rest:
        return False
    return rest[0] if len(rest) == 1 else AnyOf(rest)


def negate(member: Bound) -> Bound:
    """Turn around, folding constants and double negation."""
    if isinstance(member, bool):
        return not member
    return member.member if isinstance(member, Not) else Not(member)


class _Binder:
    def __init__(self, tag_types: Mapping[str, FieldType], attribute_names: frozenset[str]) -> None:
        self._tag_types = tag_types
        self._attribute_names = attribute_names

    def bind(self, tree: Bound) -> Bound:
        match tree:
            case AllOf(members):
                return all_of(*map(self.bind, members))
            case AnyOf(members):
                return any_of(*map(self.bind, members))
            case Not(member):
                return negate(self.bind(member))
            case Condition():
                return self._bind_condition(tree)
        return tree

    def _bind_condition(self, condition: Condition) -> Bound:
        field, operator, value = condition.field, condition.operator, condition.value
        known = self._field_type(field)
        if operator is Operator.HAS:
            return Exists(field) if known is not None else False
        if value is None:
            raise _refused(field, "a comparison needs a value")
        if isinstance(value, float) and not math.isfinite(value):
            raise _refused(field, "the number must be finite")
        if known is None:
            _check_operator(field, FieldType.of(value), operator)
            return False
        _check_operator(field, known, operator)
        if operator is Operator.NOT_EQUAL:
            return all_of(Exists(field), negate(_equal(field, known, value)))
        if operator is Operator.EQUAL:
            return _equal(field, known, value)
        if known is FieldType.INTEGER:
            return _integer_order(field, operator, _number(field, known, value))
        return _float_order(field, operator, _number(field, known, value))

    def _field_type(self, field: str) -> FieldType | None:
        """Return the type, None where no entry of the library has the field."""
        base = BASE_FIELDS.get(field)
        if base is not None:
            return base
        group, _, name = field.partition(".")
        if group not in {"tags", "attributes"} or not NAME.match(name):
            raise _refused(field, "there is no such field")
        if group == "tags":
            return self._tag_types.get(name)
        return FieldType.STRING if name in self._attribute_names else None


def _check_operator(field: str, known: FieldType, operator: Operator) -> None:
    if operator in ORDER and known not in {FieldType.INTEGER, FieldType.FLOAT}:
        raise _refused(field, f"{known.value} values have no order")


def _equal(field: str, known: FieldType, value: TagValue) -> Bound:
    if known is FieldType.STRING:
        if not isinstance(value, str):
            raise _mismatch(field, known, value)
        return Match(field, (value,))
    if known is FieldType.BOOLEAN:
        if not isinstance(value, bool):
            raise _mismatch(field, known, value)
        return Match(field, (value,))
    number = _number(field, known, value)
    if known is FieldType.INTEGER:
        whole = _whole(number)
        return False if whole is None else Match(field, (whole,))
    exact = _as_double(number)
    return False if exact != number else Range(field, gte=exact, lte=exact)


def _integer_order(field: str, operator: Operator, number: float) -> Bound:
    """Order of whole numbers, exact over all of int64 though ranges are given in doubles."""
    if operator is Operator.GREATER:
        return _at_least(field, math.floor(number) + 1)
    if operator is Operator.GREATER_OR_EQUAL:
        return _at_least(field, math.ceil(number))
    if operator is Operator.LESS:
        return _at_most(field, math.ceil(number) - 1)
    return _at_most(field, math.floor(number))


def _at_least(field: str, bound: int) -> Bound:
    if bound > INT64_MAX:
        return False
    if bound <= INT64_MIN:
        return Exists(field)
    if abs(bound) <= EXACT_IN_DOUBLE or int(float(bound)) == bound:
        return Range(field, gte=float(bound))
    # Between two doubles: name the few integers up to the next one, at most 1,023.
    step = _double_at_or_above(bound)
    between = Match(field, tuple(range(bound, min(int(step), INT64_MAX + 1))))
    return between if int(step) > INT64_MAX else any_of(Range(field, gte=step), between)


def _at_most(field: str, bound: int) -> Bound:
    if bound < INT64_MIN:
        return False
    if bound >= INT64_MAX:
        return Exists(field)
    if abs(bound) <= EXACT_IN_DOUBLE or int(float(bound)) == bound:
        return Range(field, lte=float(bound))
    step = _double_at_or_below(bound)
    return any_of(Range(field, lte=step), Match(field, tuple(range(int(step) + 1, bound + 1))))


def _float_order(field: str, operator: Operator, number: float) -> Bound:
    if operator is Operator.GREATER or operator is Operator.GREATER_OR_EQUAL:
        bound = _double_at_or_above(number)
        strict = operator is Operator.GREATER and bound == number
        return Range(field, gt=bound) if strict else Range(field, gte=bound)
    bound = _double_at_or_below(number)
    strict = operator is Operator.LESS and bound == number
    return Range(field, lt=bound) if strict else Range(field, lte=bound)


def _number(field: str, known: FieldType, value: TagValue) -> float:
    """Return the int or float (in type terms both are "float") of a numeric literal."""
    if isinstance(value, bool | str):
        raise _mismatch(field, known, value)
    return value


def _whole(number: float) -> int | None:
    whole = int(number)
    return whole if whole == number and INT64_MIN <= whole <= INT64_MAX else None


def _as_double(number: float) -> float:
    return float(number)


def _double_at_or_above(number: float) -> float:
    double = float(number)
    return double if double >= number else math.nextafter(double, math.inf)


def _double_at_or_below(number: float) -> float:
    double = float(number)
    return double if double <= number else math.nextafter(double, -math.inf)


def _mismatch(field: str, known: FieldType, value: TagValue) -> ServiceError:
    return _refused(field, f"holds {known.value} values, not {FieldType.of(value).value}")


def _refused(field: str, description: str) -> ServiceError:
    return field_error("filter", f"{field}: {description}")
