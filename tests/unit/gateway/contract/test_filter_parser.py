"""Filter strings: syntax trees, values and errors with positions."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Category
from imagesearch_services.gateway.contract.filter_parser import MAX_BYTES, MAX_DEPTH, parse_filter
from imagesearch_services.gateway.filters import (
    AllOf,
    AnyOf,
    Comparison,
    Filter,
    Not,
    Operator,
)

A = Comparison("tags.a", Operator.EQUAL, 1)
B = Comparison("tags.b", Operator.EQUAL, 2)
C = Comparison("tags.c", Operator.EQUAL, 3)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("tags.a = 1 AND tags.b = 2 OR tags.c = 3", AnyOf((AllOf((A, B)), C))),
        ("tags.a = 1 OR tags.b = 2 AND tags.c = 3", AnyOf((A, AllOf((B, C))))),
        ("(tags.a = 1 OR tags.b = 2) AND tags.c = 3", AllOf((AnyOf((A, B)), C))),
        ("NOT tags.a = 1 AND tags.b = 2", AllOf((Not(A), B))),
        ("NOT (tags.a = 1 AND tags.b = 2)", Not(AllOf((A, B)))),
        ("tags.a=1 AND tags.b=2 AND tags.c=3", AllOf((A, B, C))),
        (" \t\r\n((tags.a = 1))\n", A),
    ],
)
def test_and_binds_tighter_than_or_and_chains_are_flat(text: str, tree: Filter) -> None:
    assert parse_filter(text) == tree


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_a_blank_filter_matches_all_images(text: str) -> None:
    assert parse_filter(text) is None


@pytest.mark.parametrize(
    ("text", "comparison"),
    [
        ('tags.brand = "acme"', Comparison("tags.brand", Operator.EQUAL, "acme")),
        ("tags.brand != 'a\"b'", Comparison("tags.brand", Operator.NOT_EQUAL, 'a"b')),
        (
            r'tags.x = "\"\\\'\n\t\r\u00e9"',
            Comparison("tags.x", Operator.EQUAL, "\"\\'\n\t\ré"),
        ),
        ('tags.x = "日本 (AND)"', Comparison("tags.x", Operator.EQUAL, "日本 (AND)")),
        ("tags.price < 50", Comparison("tags.price", Operator.LESS, 50)),
        ("tags.price>=-0.5e1", Comparison("tags.price", Operator.GREATER_OR_EQUAL, -5.0)),
        ("tags.on = true", Comparison("tags.on", Operator.EQUAL, True)),
        ("tags.on != false", Comparison("tags.on", Operator.NOT_EQUAL, False)),
        ("tags.AND:*", Comparison("tags.AND", Operator.HAS)),
        ("tags.a : *", Comparison("tags.a", Operator.HAS)),
        ('attributes.pattern = "x"', Comparison("attributes.pattern", Operator.EQUAL, "x")),
        ('entity_id = ""', Comparison("entity_id", Operator.EQUAL, "")),
        ("width <= 9223372036854775807", Comparison("width", Operator.LESS_OR_EQUAL, 2**63 - 1)),
        ("size_bytes > -9223372036854775808", Comparison("size_bytes", Operator.GREATER, -(2**63))),
        ("width = 00000000000000000000007", Comparison("width", Operator.EQUAL, 7)),
        ("sharpness > 3", Comparison("sharpness", Operator.GREATER, 3.0)),
        (f'sha256 = "{"AB" * 32}"', Comparison("sha256", Operator.EQUAL, "ab" * 32)),
        (
            'create_time >= "1970-01-01T01:00:01.5+01:00"',
            Comparison("create_time", Operator.GREATER_OR_EQUAL, 1.5),
        ),
        (
            "update_time < '1970-01-02t00:00:00.123456789z'",
            Comparison("update_time", Operator.LESS, 86400.123456),
        ),
    ],
)
def test_values_have_the_type_of_their_field(text: str, comparison: Comparison) -> None:
    read = parse_filter(text)
    assert read == comparison
    assert isinstance(read, Comparison)
    assert type(read.value) is type(comparison.value)


@pytest.mark.parametrize("category", Category)
@pytest.mark.parametrize("style", ["{}", '"{}"', "'{}'"])
def test_a_category_is_written_as_its_short_name_in_any_case(
    category: Category, style: str
) -> None:
    expected = Comparison("category", Operator.EQUAL, int(category))
    for name in (category.name, category.name.lower(), category.name.title()):
        assert parse_filter(f"category = {style.format(name)}") == expected


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("tags.price <", 12, "end of the filter"),
        ('tags.brand = "acme" AND (tags.price < 50', 40, '")"'),
        ("colour = 3", 0, 'unknown field "colour"'),
        ("width = 'x", 8, "closing quote"),
        ("width = 'x'", 8, "an integer"),
        ("width ~ 3", 6, "unexpected character"),
        ("width = 3.5", 8, "an integer"),
        ("width = 9223372036854775808", 8, "64-bit"),
        (f"width = {'9' * 4000}", 8, "64-bit"),
        ("tags.x = 1e999", 9, "double"),
        ("tags.x = 1 tags.y = 2", 11, "AND, OR"),
        ("tags.x = 1 and tags.y = 2", 11, 'write "AND"'),
        ("not tags.x = 1", 0, 'unknown field "not"'),
        ("tags.x = 1 AND", 14, "a field"),
        ("tags.x = 1 AND OR", 15, "a field"),
        ("tags.x = 1)", 10, "end of the filter"),
        ("()", 1, "a field"),
        ("tags.x = acme", 9, 'write "acme" in quotes'),
        ("tags = 1", 0, "tags.NAME"),
        ("tags.a.b = 1", 5, "a name has"),
        (f"tags.{'x' * 64} = 1", 5, "a name has"),
        ("tags.x < 'a'", 7, "supports = != :*"),
        ("tags.x < true", 7, "supports = != :*"),
        ("tags.x != 1.5", 7, "supports = < <= > >= :*"),
        ("entity_id < 'a'", 10, "supports = != :*"),
        ("sharpness != 2", 10, "supports = < <= > >= :*"),
        ("tags.x:1", 7, '"*"'),
        ("tags.x = *", 9, "a string"),
        ("category = Hat", 11, "Tops, Dress"),
        ("category = 3", 11, "string"),
        (r"entity_id = 'ab\q'", 15, "expected one of"),
        (r"entity_id = 'ab\ud800'", 15, "surrogates"),
        ("create_time > '2025-01-01'", 14, "RFC 3339"),
        ("create_time > '2025-02-30T00:00:00Z'", 14, "RFC 3339"),
        ("sha256 = 'abc'", 9, "64 hexadecimal"),
        ("tags.x = 1 && tags.y = 2", 11, "as words"),
        ("tags.x = 1 AND é = 2", 15, "quoted"),
        ("image_id", 8, "one of ="),
        ("image_id 'a'", 9, "one of ="),
        ("NOT", 3, "a field"),
    ],
)
def test_an_error_has_a_message_and_a_position(text: str, position: int, words: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_filter(text)
    assert caught.value.reason is Reason.FILTER_INVALID
    assert caught.value.metadata == {"position": str(position)}
    assert words in caught.value.message
    assert caught.value.fields[0].field == "filter"


def test_positions_count_characters_not_bytes() -> None:
    with pytest.raises(ServiceError) as caught:
        parse_filter('entity_id = "日本語" ?')
    assert caught.value.metadata["position"] == "18"


def test_the_length_of_a_filter_is_limited_in_bytes() -> None:
    padding = " " * (MAX_BYTES - len("width = 1"))
    assert parse_filter("width = 1" + padding) is not None
    with pytest.raises(ServiceError) as caught:
        parse_filter("width = 1" + padding + " ")
    assert caught.value.metadata["position"] == str(MAX_BYTES)
    with pytest.raises(ServiceError) as caught:
        parse_filter("é" * (MAX_BYTES // 2 + 1))
    assert caught.value.metadata["position"] == str(MAX_BYTES // 2)


def test_nesting_is_limited() -> None:
    assert parse_filter("(" * MAX_DEPTH + "width = 1" + ")" * MAX_DEPTH) is not None
    assert parse_filter("NOT " * MAX_DEPTH + "width = 1") is not None
    for hostile in ("(", "NOT ", "NOT ("):
        with pytest.raises(ServiceError) as caught:
            parse_filter(hostile * (MAX_BYTES // len(hostile)))
        assert caught.value.reason is Reason.FILTER_INVALID
        assert "levels" in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        '"' + "\\" * 4000,
        "'" * 4001,
        "entity_id='" + "\\u00" * 1000,
        "width=1 AND " * 340 + "width=1",
        "-" * 4000,
        "1" * 4000 + "e",
        "." * 4000,
    ],
)
def test_hostile_filters_are_parsed_quickly(text: str) -> None:
    started_s = time.process_time()
    refusal(text)
    assert time.process_time() - started_s < 0.5


def refusal(text: str) -> ServiceError | None:
    """Return the error of a filter, if any. Only a ServiceError is expected."""
    try:
        parse_filter(text)
    except ServiceError as error:
        return error
    return None


WORDS = st.sampled_from(
    [
        *("(", ")", "AND", "OR", "NOT", "=", "!=", "<", "<=", ":", "*", ":*", "'", '"', "\\"),
        *("tags.a", "tags.", "width", "category", "Bag", "create_time", "1", "-2.5", "1e400"),
        *("'x'", '"2025-01-01T00:00:00Z"', "true", "attributes.color", " ", "é", "\x00"),
    ]
)


@given(st.one_of(st.text(max_size=200), st.lists(WORDS, max_size=40).map(" ".join)))
def test_any_text_is_parsed_or_rejected_with_a_position_inside_it(text: str) -> None:
    error = refusal(text)
    assert error is None or error.reason is Reason.FILTER_INVALID
    assert error is None or 0 <= int(error.metadata["position"]) <= len(text)


COMPARISONS = st.one_of(
    st.builds(
        Comparison,
        st.from_regex(r"tags\.[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True),
        st.just(Operator.EQUAL),
        st.one_of(
            st.text(max_size=8),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False, allow_infinity=False),
            st.booleans(),
        ),
    ),
    st.builds(
        Comparison,
        st.sampled_from(["width", "height", "size_bytes"]),
        st.sampled_from([operator for operator in Operator if operator is not Operator.HAS]),
        st.integers(-(2**63), 2**63 - 1),
    ),
)
TREES = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(AllOf, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


def written(tree: Filter) -> str:
    """Return a tree as a filter string, with parentheses around every level."""
    if isinstance(tree, Comparison):
        assert tree.value is not None
        return f"{tree.field} {tree.operator.value} {literal(tree.value)}"
    if isinstance(tree, Not):
        return f"NOT ({written(tree.filter)})"
    word = " AND " if isinstance(tree, AllOf) else " OR "
    return word.join(f"({written(member)})" for member in tree.filters)


def literal(value: object) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(value).lower() if isinstance(value, bool) else repr(value)


@given(TREES)
def test_a_tree_survives_writing_and_parsing(tree: Filter) -> None:
    assert parse_filter(written(tree)) == tree
