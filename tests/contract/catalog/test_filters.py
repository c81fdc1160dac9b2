"""Filters match the same entries on both backends."""

from __future__ import annotations

import pytest
import pytest_asyncio

from imagesearch.catalog.v1 import filter_pb2
from imagesearch_services.common.errors import Reason
from tests.contract.catalog.support import (
    Catalog,
    all_of,
    any_of,
    has,
    make_entry,
    negated,
    refused,
    vector_at,
    where,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

Filter = filter_pb2.Filter

ENTRIES = {
    "a": {
        "entity_id": "one",
        "category": 4,
        "tags": {"brand": "acme", "stock": 1, "price": 0.1, "new": True},
        "info": {"width": 100, "height": 50, "size_bytes": 10, "sha256": "aa", "media_type": "x"},
    },
    "b": {
        "entity_id": "one",
        "tags": {"brand": "", "stock": -1, "price": 7.0, "new": False},
        "info": {"width": 200, "sharpness": 2.5, "media_type": "x"},
    },
    "c": {
        "category": 14,
        "tags": {"brand": "Acme", "stock": 2**53 + 1, "price": 1e300},
        "subject": {
            "attributes": [{"name": "pattern", "value": "striped"}],
            "colors": [{"name": "red"}, {"name": "navy"}],
        },
    },
    "d": {
        "tags": {"stock": 2**63 - 1, "Brand_2": "x", "_": "y"},
        "subject": {"colors": [{"name": "red"}]},
    },
    "e": {"tags": {"stock": -(2**63)}},
    "f": {},
}
ALL = set(ENTRIES)

CASES: list[tuple[str, Filter, str]] = [
    ("string", where("tags.brand", "=", "acme"), "a"),
    ("empty string", where("tags.brand", "=", ""), "b"),
    ("string not equal", where("tags.brand", "!=", "acme"), "bc"),
    (
        "negation includes entries without the tag",
        negated(where("tags.brand", "=", "acme")),
        "bcdef",
    ),
    ("has", has("tags.brand"), "abc"),
    ("has, negated", negated(has("tags.brand")), "def"),
    ("capital letters and digits in a name", where("tags.Brand_2", "=", "x"), "d"),
    ("shortest name", where("tags._", "=", "y"), "d"),
    ("never used tag", where("tags.never", "=", "x"), ""),
    ("never used tag, not equal", where("tags.never", "!=", "x"), ""),
    ("never used tag, negated", negated(where("tags.never", ">", 1)), "abcdef"),
    ("has never used tag", has("tags.never"), ""),
    ("true", where("tags.new", "=", True), "a"),
    ("false", where("tags.new", "=", False), "b"),
    ("not true", where("tags.new", "!=", True), "b"),
    ("integer", where("tags.stock", "=", 1), "a"),
    ("integer equal to a float", where("tags.stock", "=", 1.0), "a"),
    ("integer equal to a half", where("tags.stock", "=", 1.5), ""),
    ("integer above a half", where("tags.stock", ">", 0.5), "acd"),
    ("integer below a half", where("tags.stock", "<", -0.5), "be"),
    ("integer beyond double", where("tags.stock", "=", 2**53 + 1), "c"),
    ("neighbor of an integer beyond double", where("tags.stock", "=", 2**53), ""),
    ("above an integer beyond double", where("tags.stock", ">", 2**53 + 1), "d"),
    ("at least an integer beyond double", where("tags.stock", ">=", 2**53 + 1), "cd"),
    ("at least the next integer", where("tags.stock", ">=", 2**53 + 2), "d"),
    ("below an integer beyond double", where("tags.stock", "<", 2**53 + 1), "abe"),
    ("at most an integer beyond double", where("tags.stock", "<=", 2**53 + 1), "abce"),
    ("largest integer", where("tags.stock", "=", 2**63 - 1), "d"),
    ("below the largest integer", where("tags.stock", "<", 2**63 - 1), "abce"),
    ("at least the largest integer", where("tags.stock", ">=", 2**63 - 1), "d"),
    ("above the largest integer", where("tags.stock", ">", 2**63 - 1), ""),
    ("smallest integer", where("tags.stock", "<=", -(2**63)), "e"),
    ("above the smallest integer", where("tags.stock", ">", -(2**63)), "abcd"),
    ("integer below a huge float", where("tags.stock", "<", 1e30), "abcde"),
    ("float", where("tags.price", "=", 0.1), "a"),
    ("float equal to an integer", where("tags.price", "=", 7), "b"),
    ("float not equal", where("tags.price", "!=", 0.1), "bc"),
    ("float below itself", where("tags.price", "<", 0.1), ""),
    ("float at most itself", where("tags.price", "<=", 0.1), "a"),
    ("float above an integer", where("tags.price", ">", 0), "abc"),
    ("float above an integer that is not a double", where("tags.price", ">", 2**53 + 1), "c"),
    ("category", where("category", "=", 4), "a"),
    ("has category", has("category"), "ac"),
    ("other category", where("category", "!=", 4), "c"),
    ("entity", where("entity_id", "=", "one"), "ab"),
    ("has entity", has("entity_id"), "ab"),
    ("image", where("image_id", "=", "c"), "c"),
    ("width", where("width", ">=", 100), "ab"),
    ("height", where("height", "=", 50), "a"),
    ("size", where("size_bytes", "<", 11), "ab"),
    ("file hash", where("sha256", "=", "aa"), "a"),
    ("sharpness", where("sharpness", ">", 2), "b"),
    ("create time", where("create_time", ">", 1.7e9), "abcdef"),
    ("update time", where("update_time", "<", 1.7e9), ""),
    ("attribute", where("attributes.pattern", "=", "striped"), "c"),
    ("second of two colors", where("attributes.color", "=", "navy"), "c"),
    ("color", where("attributes.color", "=", "red"), "cd"),
    ("color not equal", where("attributes.color", "!=", "navy"), "d"),
    ("has color", has("attributes.color"), "cd"),
    ("unknown attribute", has("attributes.sleeve"), ""),
    ("empty all_of", all_of(), "abcdef"),
    ("empty any_of", any_of(), ""),
    ("negated empty any_of", negated(any_of()), "abcdef"),
    ("empty any_of inside all_of", all_of(any_of(), has("category")), ""),
    ("both", all_of(has("tags.brand"), where("tags.stock", "<", 2)), "ab"),
    ("either", any_of(where("tags.brand", "=", "Acme"), where("category", "=", 4)), "ac"),
    (
        "nested",
        negated(any_of(all_of(has("category"), has("tags.brand")), where("tags.stock", "<", 0))),
        "df",
    ),
    ("double negation", negated(negated(has("category"))), "ac"),
]


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def filled_library(catalog: Catalog) -> str:
    await catalog.make_library("shelf")
    await catalog.store(
        "shelf", *(make_entry(name, vector_at(0), **fields) for name, fields in ENTRIES.items())
    )
    return "shelf"


@pytest.mark.parametrize(
    ("tree", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
async def test_a_filter_matches_the_expected_entries(
    catalog: Catalog, filled_library: str, tree: Filter, expected: str
) -> None:
    assert await catalog.find(filled_library, tree) == set(expected)
    assert await catalog.count(filled_library, tree) == len(expected)
    assert set(await catalog.nearest(filled_library, vector_at(0), filter=tree)) == set(expected)
    assert await catalog.find(filled_library, negated(tree)) == ALL - set(expected)


@pytest.mark.parametrize(
    "tree",
    [
        where("nothing", "=", 1),
        where("tags", "=", 1),
        where("tags.", "=", 1),
        where("tags.a-b", "=", 1),
        where("tags.a.b", "=", 1),
        where("custom_content", "=", "x"),
        where("tags.brand", "=", 1),
        where("tags.brand", "<", "b"),
        where("tags.new", "=", 1),
        where("tags.new", ">", False),
        where("tags.stock", "=", "1"),
        where("tags.stock", "=", True),
        where("tags.price", "<", "1"),
        where("tags.price", "<", float("nan")),
        where("tags.price", "<", float("inf")),
        where("category", "=", "Bag"),
        Filter(),
        negated(Filter()),
        Filter(condition=filter_pb2.Condition(field="tags.stock")),
        Filter(condition=filter_pb2.Condition(field="tags.stock", operator=1)),
    ],
    ids=str,
)
async def test_an_invalid_filter_is_refused(
    catalog: Catalog, filled_library: str, tree: Filter
) -> None:
    with refused(
        Reason.FIELD_INVALID
        if tree.condition.operator != 1 or tree.condition.HasField("value")
        else Reason.FIELD_REQUIRED
    ) as errors:
        await catalog.count(filled_library, tree)
    assert errors[0].fields[0].field == "filter"
