"""Binds a request's filter to the fields of a library: checks types, rewrites conditions."""

from __future__ import annotations

import math
from collections.abc import Mapping

from imagesearch_services.catalog.filters import (
    BASE_FIELDS,
    INT64_MAX,
    INT64_MIN,
    NAME,
    AllOf,
    AnyOf,
    Bound,
    Condition,
    Exists,
    Filter,
    Match,
    Not,
    Operator,
    Range,
    all_of,
    any_of,
    negate,
)
from imagesearch_services.catalog.model import FieldType, Library
from imagesearch_services.common.errors import ServiceError, field_error
from imagesearch_services.common.types import TagValue

EXACT_IN_DOUBLE = 2**53
"""Largest magnitude up to which every integer is a double precision number (IEEE 754)."""

ORDER_OPERATORS = {
    Operator.LESS,
    Operator.LESS_OR_EQUAL,
    Operator.GREATER,
    Operator.GREATER_OR_EQUAL,
}


def bind_filter(library: Library, tree: Filter | None) -> Bound:
    """Bind a filter to the tags and attributes of a library; False if no entry can match."""
    return bind(tree, library.tag_types, library.attribute_names)


def engine_filter(bound: Bound) -> Filter | None:
    """Return the filter to pass to an engine; None matches every entry."""
    return None if isinstance(bound, bool) else bound


def fields_of(bound: Bound) -> frozenset[str]:
    """Return the fields that a bound filter reads."""
    match bound:
        case AllOf(members) | AnyOf(members):
            return frozenset().union(*map(fields_of, members))
        case Not(member):
            return fields_of(member)
        case Match() | Range() | Exists():
            return frozenset({bound.field})
    return frozenset()


def bind(
    tree: Filter | None, tag_types: Mapping[str, FieldType], attribute_names: frozenset[str]
) -> Bound:
    """Check a filter against the fields of a library and rewrite it for an engine.

    Args:
        tree: as requested; None matches every entry.
        tag_types: types of the library's tags. An unknown tag is not an error: no entry has it.
        attribute_names: names of the attributes of the library's entries.

    Raises:
        ServiceError: FIELD_INVALID for an unknown field, a value whose type differs from the
            field's, or an operator that the type does not have.
    """
    return _Binder(tag_types, attribute_names).bind(True if tree is None else tree)


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
        field_type = self._field_type(field)
        if operator is Operator.HAS:
            return Exists(field) if field_type is not None else False
        if value is None:
            raise _invalid(field, "a comparison needs a value")
        if isinstance(value, float) and not math.isfinite(value):
            raise _invalid(field, "the number must be finite")
        if field_type is None:
            _check_operator(field, FieldType.of(value), operator)
            return False
        _check_operator(field, field_type, operator)
        if operator is Operator.NOT_EQUAL:
            return all_of(Exists(field), negate(_equal(field, field_type, value)))
        if operator is Operator.EQUAL:
            return _equal(field, field_type, value)
        if field_type is FieldType.INTEGER:
            return _integer_order(field, operator, _number(field, field_type, value))
        return _float_order(field, operator, _number(field, field_type, value))

    def _field_type(self, field: str) -> FieldType | None:
        """Return the type of a field; None if no entry of the library has the field."""
        base = BASE_FIELDS.get(field)
        if base is not None:
            return base
        group, _, name = field.partition(".")
        if group not in {"tags", "attributes"} or not NAME.match(name):
            raise _invalid(
                field, f"unknown field; use {', '.join(BASE_FIELDS)}, tags.NAME or attributes.NAME"
            )
        if group == "tags":
            return self._tag_types.get(name)
        return FieldType.STRING if name in self._attribute_names else None


def _check_operator(field: str, field_type: FieldType, operator: Operator) -> None:
    if operator in ORDER_OPERATORS and field_type not in {FieldType.INTEGER, FieldType.FLOAT}:
        raise _invalid(field, f"{field_type.value} values have no order; use =, != or :*")


def _equal(field: str, field_type: FieldType, value: TagValue) -> Bound:
    if field_type is FieldType.STRING:
        if not isinstance(value, str):
            raise _mismatch(field, field_type, value)
        return Match(field, (value,))
    if field_type is FieldType.BOOLEAN:
        if not isinstance(value, bool):
            raise _mismatch(field, field_type, value)
        return Match(field, (value,))
    number = _number(field, field_type, value)
    if field_type is FieldType.INTEGER:
        integer = _integer(number)
        return False if integer is None else Match(field, (integer,))
    double = float(number)
    return False if double != number else Range(field, gte=double, lte=double)


def _integer_order(field: str, operator: Operator, number: float) -> Bound:
    """Compare integers, exact over all of int64 although the bounds of a range are doubles."""
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
    if abs(bound) < EXACT_IN_DOUBLE:
        return Range(field, gte=float(bound))
    double, low, _ = _rounded_alike(bound)
    if bound > double:
        above = math.nextafter(float(double), math.inf)
        between = _any_integer(field, bound, int(above) - 1)
        return any_of(Range(field, gte=above), between)
    return all_of(
        any_of(Range(field, gte=float(double)), _any_integer(field, bound, double - 1)),
        negate(_any_integer(field, low, bound - 1)),
    )


def _at_most(field: str, bound: int) -> Bound:
    if bound < INT64_MIN:
        return False
    if bound >= INT64_MAX:
        return Exists(field)
    if abs(bound) < EXACT_IN_DOUBLE:
        return Range(field, lte=float(bound))
    double, _, high = _rounded_alike(bound)
    if bound < double:
        below = math.nextafter(float(double), -math.inf)
        between = _any_integer(field, int(below) + 1, bound)
        return any_of(Range(field, lte=below), between)
    return all_of(
        any_of(Range(field, lte=float(double)), _any_integer(field, double + 1, bound)),
        negate(_any_integer(field, bound + 1, high)),
    )


def _rounded_alike(integer: int) -> tuple[int, int, int]:
    """Return the double nearest to an integer, and the range of integers that are rounded to it.

    Engines compare integers with the bounds of a range, which are doubles, in two ways: exactly if
    the field has an index, otherwise after rounding them. Both agree except for integers that are
    no doubles, so those around the bound are listed, at most 1,023.
    """
    double = int(float(integer))
    low, high = min(integer, double), max(integer, double)
    while int(float(low - 1)) == double:
        low -= 1
    while int(float(high + 1)) == double:
        high += 1
    return double, low, high


def _any_integer(field: str, first: int, last: int) -> Bound:
    integers = tuple(range(max(first, INT64_MIN), min(last, INT64_MAX) + 1))
    return Match(field, integers) if integers else False


def _float_order(field: str, operator: Operator, number: float) -> Bound:
    if operator is Operator.GREATER or operator is Operator.GREATER_OR_EQUAL:
        bound = _double_at_or_above(number)
        strict = operator is Operator.GREATER and bound == number
        return Range(field, gt=bound) if strict else Range(field, gte=bound)
    bound = _double_at_or_below(number)
    strict = operator is Operator.LESS and bound == number
    return Range(field, lt=bound) if strict else Range(field, lte=bound)


def _number(field: str, field_type: FieldType, value: TagValue) -> float:
    """Return the int or float of a numeric literal; an int is a valid `float` to type checkers."""
    if isinstance(value, bool | str):
        raise _mismatch(field, field_type, value)
    return value


def _integer(number: float) -> int | None:
    """Return a number as an int64; None if it is not one."""
    integer = int(number)
    return integer if integer == number and INT64_MIN <= integer <= INT64_MAX else None


def _double_at_or_above(number: float) -> float:
    double = float(number)
    return double if double >= number else math.nextafter(double, math.inf)


def _double_at_or_below(number: float) -> float:
    double = float(number)
    return double if double <= number else math.nextafter(double, -math.inf)


def _mismatch(field: str, field_type: FieldType, value: TagValue) -> ServiceError:
    # The Gateway finds the invalid condition by the type at the end of this message.
    return _invalid(field, f"holds {field_type.value} values, not {FieldType.of(value).value}")


def _invalid(field: str, description: str) -> ServiceError:
    return field_error("filter", f"{field}: {description}")
