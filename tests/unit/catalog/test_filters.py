"""Binding of filters to a library: validation, exact comparisons, constant folding."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesearch_services.catalog.filter_binding import bind
from imagesearch_services.catalog.filters import (
    INT64_MAX,
    INT64_MIN,
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
)
from imagesearch_services.catalog.model import FieldType
from imagesearch_services.common.errors import Reason, ServiceError

TAGS = {"n": FieldType.INTEGER, "x": FieldType.FLOAT, "s": FieldType.STRING}

COMPARE = {
    Operator.EQUAL: lambda left, right: left == right,
    Operator.NOT_EQUAL: lambda left, right: left != right,
    Operator.LESS: lambda left, right: left < right,
    Operator.LESS_OR_EQUAL: lambda left, right: left <= right,
    Operator.GREATER: lambda left, right: left > right,
    Operator.GREATER_OR_EQUAL: lambda left, right: left >= right,
}


def bound(tree: Filter) -> Bound:
    return bind(tree, TAGS, frozenset({"color"}))


def matches(  # noqa: PLR0911  # one return per kind of node
    tree: Bound, value: float, *, indexed: bool = True
) -> bool:
    """Evaluate a bound filter as the engines do, with range bounds in double precision.

    Without an index, the engines round integers before they compare them with a range.
    """
    match tree:
        case bool():
            return tree
        case AllOf(members):
            return all(matches(member, value, indexed=indexed) for member in members)
        case AnyOf(members):
            return any(matches(member, value, indexed=indexed) for member in members)
        case Not(member):
            return not matches(member, value, indexed=indexed)
        case Exists():
            return True
        case Match(_, values):
            return value in values
        case Range(_, gt, gte, lt, lte):
            value = value if indexed else float(value)
            return (
                (gt is None or value > gt)
                and (gte is None or value >= gte)
                and (lt is None or value < lt)
                and (lte is None or value <= lte)
            )
    raise TypeError(tree)


def near(center: int) -> st.SearchStrategy[int]:
    return st.integers(max(INT64_MIN, center - 3), min(INT64_MAX, center + 3))


edges = st.sampled_from([0, 2**53, -(2**53), 2**60, -(2**60), INT64_MAX, INT64_MIN])
integers = st.integers(INT64_MIN, INT64_MAX) | edges.flatmap(near)
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(integers | finite, integers, st.sampled_from(list(COMPARE)), st.booleans())
def test_integers_are_compared_exactly_although_range_bounds_are_doubles(
    literal: float, stored: int, operator: Operator, indexed: bool
) -> None:
    tree = bound(Condition("tags.n", operator, literal))
    assert matches(tree, stored, indexed=indexed) == COMPARE[operator](stored, literal)


@given(integers, st.integers(-1100, 1100), st.sampled_from(list(COMPARE)), st.booleans())
def test_neighbors_beyond_double_precision_are_compared_exactly(
    literal: int, difference: int, operator: Operator, indexed: bool
) -> None:
    stored = min(max(literal + difference, INT64_MIN), INT64_MAX)
    tree = bound(Condition("tags.n", operator, literal))
    assert matches(tree, stored, indexed=indexed) == COMPARE[operator](stored, literal)


@given(integers | finite, finite, st.sampled_from(list(COMPARE)))
def test_floats_are_compared_exactly_with_integers_and_floats(
    literal: float, stored: float, operator: Operator
) -> None:
    tree = bound(Condition("tags.x", operator, literal))
    assert matches(tree, stored) == COMPARE[operator](stored, literal)


@given(integers, st.sampled_from(list(COMPARE)))
def test_an_integer_range_lists_fewer_than_1024_values(literal: int, operator: Operator) -> None:
    def value_count(tree: Bound) -> int:
        match tree:
            case AllOf(members) | AnyOf(members):
                return sum(map(value_count, members))
            case Not(member):
                return value_count(member)
            case Match(_, values):
                return len(values)
        return 0

    assert value_count(bound(Condition("tags.n", operator, literal))) < 1024


def test_constants_are_folded() -> None:
    string = Condition("tags.s", Operator.EQUAL, "a")
    match = Match("tags.s", ("a",))
    never = Condition("tags.never", Operator.EQUAL, "a")
    assert bound(AllOf(())) is True
    assert bound(AnyOf(())) is False
    assert bound(AllOf((string, never))) is False
    assert bound(AnyOf((string, never))) == match
    assert bound(AllOf((string, Not(never)))) == match
    assert bound(AnyOf((string, Not(never)))) is True
    assert bound(Not(Not(string))) == match
    assert bind(None, TAGS, frozenset()) is True


def test_not_equal_requires_the_field_to_exist() -> None:
    tree = bound(Condition("attributes.color", Operator.NOT_EQUAL, "red"))
    field = "attributes.color"
    assert tree == AllOf((Exists(field), Not(Match(field, ("red",)))))


@pytest.mark.parametrize(
    ("field", "operator", "value"),
    [
        ("tags.s", Operator.LESS, "b"),
        ("tags.s", Operator.EQUAL, 1),
        ("tags.n", Operator.EQUAL, "1"),
        ("tags.n", Operator.LESS, True),
        ("tags.x", Operator.LESS, math.nan),
        ("tags.never", Operator.LESS, "b"),
        ("image_id", Operator.GREATER, "a"),
        ("tags", Operator.HAS, None),
        ("tags.n\n", Operator.HAS, None),
        ("secrets.n", Operator.HAS, None),
        ("tags.n", Operator.EQUAL, None),
    ],
)
def test_invalid_conditions_are_refused(
    field: str, operator: Operator, value: str | float | None
) -> None:
    with pytest.raises(ServiceError) as caught:
        bound(Condition(field, operator, value))
    assert caught.value.reason is Reason.FIELD_INVALID
