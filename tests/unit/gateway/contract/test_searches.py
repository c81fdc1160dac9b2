"""Reading of search requests: values, and errors by field."""

from __future__ import annotations

from typing import Any

import pytest

from imagesearch.gateway.v1 import search_pb2
from imagesearch.type.v1 import geometry_pb2
from imagesearch_services.common.errors import Reason
from imagesearch_services.gateway.contract.searches import read_search
from imagesearch_services.gateway.filters import AllOf, Comparison, Operator
from imagesearch_services.gateway.model import Relation
from imagesearch_services.gateway.search.request import PictureQuery, StoredQuery
from tests.unit.gateway.contract.requests import refusal, search


def test_all_fields_of_a_search_are_read() -> None:
    read = read_search(
        search(
            region=geometry_pb2.Box(x_max=5, y_max=6),
            filter="width = 1",
            category=4,
            page_size=500,
            min_score=0.5,
            max_false_positive_rate=0.25,
            relation=3,
            distinct_entities=True,
        )
    )
    assert isinstance(read.query, PictureQuery)
    assert read.query.region is not None
    assert read.filter == AllOf(
        (
            Comparison("width", Operator.EQUAL, 1),
            Comparison("category", Operator.EQUAL, 4),
        )
    )
    assert read.page_size == 100
    assert (read.min_score, read.max_false_positive_rate) == (0.5, 0.25)
    assert read.relations == (Relation.SAME, Relation.SIMILAR)
    assert read.distinct_entities


def test_unset_fields_of_a_search_are_none() -> None:
    read = read_search(search())
    assert (read.min_score, read.max_false_positive_rate, read.filter) == (None, None, None)
    assert (read.page_size, read.relations, read.field_fingerprints) == (10, (), {})
    assert read_search(search(min_score=0)).min_score == 0


def test_a_query_by_stored_image_has_no_region() -> None:
    by_name = search_pb2.SearchImagesRequest(
        parent="libraries/shop", image_name="libraries/shop/images/a"
    )
    assert read_search(by_name).query == StoredQuery("a")
    by_name.region.x_max = by_name.region.y_max = 5
    assert refusal(read_search, by_name).fields[0].field == "region"
    elsewhere = search_pb2.SearchImagesRequest(
        parent="libraries/shop", image_name="libraries/other/images/a"
    )
    assert refusal(read_search, elsewhere).fields[0].field == "image_name"


def test_only_a_search_with_a_page_token_needs_no_query() -> None:
    request = search_pb2.SearchImagesRequest(parent="libraries/shop", page_token="t")  # noqa: S106
    assert read_search(request).query is None
    request.page_token = ""
    assert refusal(read_search, request).reason is Reason.FIELD_REQUIRED


BAD_SEARCHES: dict[str, list[dict[str, Any]]] = {
    "parent": [{"parent": ""}, {"parent": "shop"}],
    "page_size": [{"page_size": -1}],
    "page_token": [{"page_token": "x" * 200_000}],
    "min_score": [{"min_score": -0.1}, {"min_score": 1.1}, {"min_score": float("nan")}],
    "max_false_positive_rate": [
        {"max_false_positive_rate": 0},
        {"max_false_positive_rate": 1.1},
        {"max_false_positive_rate": float("nan")},
    ],
    "relation": [{"relation": 9}],
    "category": [{"category": -1}],
    "filter": [{"filter": "("}],
    "region": [{"region": geometry_pb2.Box()}],
    "annotation.media_type": [
        {"annotation": search_pb2.AnnotationOptions(media_type="image/gif")},
    ],
    "annotation.max_side_px": [
        {"annotation": search_pb2.AnnotationOptions(max_side_px=side)} for side in (-1, 63, 4097)
    ],
    "annotation.match_count": [
        {"annotation": search_pb2.AnnotationOptions(match_count=count)} for count in (-1, 21)
    ],
}


@pytest.mark.parametrize(
    ("field", "fields"), [(field, fields) for field, bad in BAD_SEARCHES.items() for fields in bad]
)
def test_an_invalid_search_is_rejected_by_field(field: str, fields: dict[str, Any]) -> None:
    error = refusal(read_search, search(**fields))
    assert error.fields[0].field == field


def test_only_equal_searches_have_equal_fingerprints() -> None:
    same = {"filter": "width = 1", "region": geometry_pb2.Box(x_max=5, y_max=6)}
    first = read_search(search(**same))
    assert first.field_fingerprints == read_search(search(**same)).field_fingerprints
    for change in (
        {"filter": "width = 2"},
        {"region": geometry_pb2.Box(x_max=5, y_max=7)},
        {"min_score": 0.5},
    ):
        assert (
            first.field_fingerprints != read_search(search(**{**same, **change})).field_fingerprints
        )
