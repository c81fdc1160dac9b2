"""Reading of requests: values, and errors by field."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import field_mask_pb2

from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.type.v1 import category_pb2, geometry_pb2, picture_pb2, tag_pb2
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Category, LibraryType
from imagesearch_services.gateway.contract.batches import read_new_images, read_searches
from imagesearch_services.gateway.contract.images import (
    read_image_changes,
    read_images_to_delete,
    read_new_image,
)
from imagesearch_services.gateway.contract.libraries import (
    read_library_changes,
    read_library_fields,
    read_library_type,
)
from imagesearch_services.gateway.contract.limits import MAX_IMAGE_BYTES
from imagesearch_services.gateway.contract.searches import read_search
from imagesearch_services.gateway.filters import AllOf, Comparison, Operator
from imagesearch_services.gateway.model import NewImage, Relation
from imagesearch_services.gateway.search.request import PictureQuery, SearchRequest, StoredQuery

PICTURE = picture_pb2.ImageContent(content=b"picture")


def mask(*paths: str) -> field_mask_pb2.FieldMask:
    return field_mask_pb2.FieldMask(paths=paths)


def refusal(read: Any, *arguments: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        read(*arguments)
    return caught.value


def add(**fields: Any) -> image_pb2.AddImageRequest:
    return image_pb2.AddImageRequest(**{"image": PICTURE, "image_id": "a", **fields})


def search(**fields: Any) -> search_pb2.SearchImagesRequest:
    return search_pb2.SearchImagesRequest(
        **{"parent": "libraries/shop", "image": PICTURE, **fields}
    )


def test_all_fields_of_an_added_picture_are_read() -> None:
    image = read_new_image(
        add(
            entity_id="thing",
            tags={
                "s": tag_pb2.TagValue(string_value=""),
                "i": tag_pb2.TagValue(int_value=0),
                "f": tag_pb2.TagValue(float_value=0),
                "b": tag_pb2.TagValue(bool_value=False),
            },
            category=4,
            custom_content="x",
            region=geometry_pb2.Box(x_max=5, y_max=6),
            subject_detection=False,
        )
    )
    assert image.fields.category is Category.BAG
    assert image.fields.tags == {"s": "", "i": 0, "f": 0.0, "b": False}
    assert [type(value) for value in image.fields.tags.values()].count(bool) == 1
    assert image.region is not None
    assert image.subject_detection is False
    assert read_new_image(add()).subject_detection is None


BAD_ADDS: dict[str, list[dict[str, Any]]] = {
    "image.content": [{"image": None}, {"image": picture_pb2.ImageContent()}],
    "image_id": [{"image_id": "a/b"}],
    "entity_id": [{"entity_id": "x" * 256}, {"entity_id": "a\n"}],
    "custom_content": [{"custom_content": "é" * 2049}],
    "category": [{"category": 99}],
    "tags": [
        {"tags": {f"t{row}": tag_pb2.TagValue(int_value=1) for row in range(65)}},
        {"tags": {"1a": tag_pb2.TagValue(int_value=1)}},
        {"tags": {"a" * 64: tag_pb2.TagValue(int_value=1)}},
    ],
    "tags.a": [
        {"tags": {"a": tag_pb2.TagValue()}},
        {"tags": {"a": tag_pb2.TagValue(string_value="x" * 1025)}},
        {"tags": {"a": tag_pb2.TagValue(float_value=float("nan"))}},
    ],
    "region": [
        {"region": geometry_pb2.Box()},
        {"region": geometry_pb2.Box(x_max=float("inf"), y_max=1)},
        {"region": geometry_pb2.Box(x_min=5, x_max=4, y_max=1)},
        {"region": geometry_pb2.Box(x_min=-9, x_max=-1, y_max=1)},
    ],
    "request_id": [{"request_id": "x" * 129}],
}


@pytest.mark.parametrize(
    ("field", "fields"), [(field, fields) for field, bad in BAD_ADDS.items() for fields in bad]
)
def test_an_invalid_added_picture_is_rejected_by_field(field: str, fields: dict[str, Any]) -> None:
    error = refusal(read_new_image, add(**fields))
    assert error.fields[0].field == field


def test_a_picture_file_may_have_ten_mebibytes() -> None:
    full = picture_pb2.ImageContent(content=bytes(MAX_IMAGE_BYTES))
    assert read_new_image(add(image=full))
    more = picture_pb2.ImageContent(content=bytes(MAX_IMAGE_BYTES + 1))
    error = refusal(read_new_image, add(image=more))
    assert error.reason is Reason.IMAGE_TOO_LARGE
    assert error.metadata == {"limit": "10485760", "actual": "10485761", "unit": "bytes"}


def test_an_invalid_item_of_a_batch_becomes_an_error_in_its_place() -> None:
    batch = image_pb2.BatchAddImagesRequest(
        parent="libraries/shop",
        requests=[
            add(),
            add(parent="libraries/shop"),
            add(parent="libraries/other"),
            add(image=None),
        ],
    )
    first, second, third, fourth = read_new_images(batch)
    assert isinstance(first, NewImage)
    assert isinstance(second, NewImage)
    assert isinstance(third, ServiceError)
    assert third.fields[0].field == "parent"
    assert isinstance(fourth, ServiceError)
    assert fourth.reason is Reason.FIELD_REQUIRED


@pytest.mark.parametrize("count", [0, 101])
def test_a_batch_has_one_to_a_hundred_items(count: int) -> None:
    adds = image_pb2.BatchAddImagesRequest(parent="libraries/shop", requests=[add()] * count)
    assert refusal(read_new_images, adds).fields[0].field == "requests"
    searches = search_pb2.BatchSearchImagesRequest(
        parent="libraries/shop", requests=[search()] * count
    )
    assert refusal(read_searches, searches).fields[0].field == "requests"


def test_a_library_update_sets_the_fields_of_its_mask() -> None:
    library = library_pb2.Library(name="libraries/shop", display_name="x", capacity=5)
    request = library_pb2.UpdateLibraryRequest(library=library)
    assert read_library_changes(request) == {"display_name": "x", "capacity": 5}
    request.update_mask.paths.append("description")
    assert read_library_changes(request) == {"description": ""}


@pytest.mark.parametrize("path", ["name", "type", "image_count", "nothing", "*", "capacity.x", ""])
def test_a_library_update_of_another_field_is_rejected(path: str) -> None:
    error = refusal(read_library_changes, library_pb2.UpdateLibraryRequest(update_mask=mask(path)))
    assert error.fields[0].field == "update_mask"
    assert f'"{path}"' in error.message


def test_an_image_update_sets_the_fields_of_its_mask() -> None:
    image = image_pb2.Image(
        entity_id="thing",
        tags={"a": tag_pb2.TagValue(int_value=1)},
        category=category_pb2.CATEGORY_BAG,
    )
    request = image_pb2.UpdateImageRequest(image=image)
    assert read_image_changes(request) == {
        "entity_id": "thing",
        "category": Category.BAG,
        "tags": {"a": 1},
    }
    request.update_mask.CopyFrom(mask("tags.a", "tags.b", "custom_content"))
    assert read_image_changes(request) == {"tags.a": 1, "tags.b": None, "custom_content": ""}


@pytest.mark.parametrize("path", ["info", "image_id", "nothing", "*", "info.width", "entity_id.x"])
def test_an_image_update_of_another_field_is_rejected(path: str) -> None:
    error = refusal(read_image_changes, image_pb2.UpdateImageRequest(update_mask=mask(path)))
    assert error.fields[0].field == "update_mask"
    assert f'"{path}"' in error.message


@pytest.mark.parametrize("paths", [("tags.1",), ("tags.",), ("tags", "tags.a")])
def test_tags_are_set_together_or_by_name(paths: tuple[str, ...]) -> None:
    error = refusal(read_image_changes, image_pb2.UpdateImageRequest(update_mask=mask(*paths)))
    assert error.fields[0].field == "update_mask"


def test_images_to_delete_are_selected_by_exactly_one_field() -> None:
    def read(**fields: Any) -> Any:
        return read_images_to_delete(image_pb2.DeleteImagesRequest(**fields), "shop")

    assert read(names=["libraries/shop/images/a"]) == ["a"]
    assert read(entity_id="e") == Comparison("entity_id", Operator.EQUAL, "e")
    assert read(filter="width = 1") == Comparison("width", Operator.EQUAL, 1)
    for nothing in ({}, {"filter": "  "}):
        assert refusal(lambda: read(**nothing)).reason is Reason.FIELD_REQUIRED  # noqa: B023
    assert refusal(lambda: read(entity_id="e", filter="f")).fields[0].field == "filter"
    other = ["libraries/shop/images/a", "libraries/other/images/a"]
    assert refusal(lambda: read(names=other)).fields[0].field == "names[1]"
    many = [f"libraries/shop/images/{row}" for row in range(1001)]
    assert refusal(lambda: read(names=many)).fields[0].field == "names"


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


def test_an_invalid_search_of_a_batch_becomes_an_error_in_its_place() -> None:
    batch = search_pb2.BatchSearchImagesRequest(
        parent="libraries/shop", requests=[search(parent=""), search(filter="(")]
    )
    good, bad = read_searches(batch)
    assert isinstance(good, SearchRequest)
    assert isinstance(bad, ServiceError)


def test_a_library_needs_a_known_type() -> None:
    assert read_library_type(1) is LibraryType.WHOLE_IMAGE
    assert refusal(read_library_type, 0).reason is Reason.FIELD_REQUIRED
    assert refusal(read_library_type, 9).reason is Reason.FIELD_INVALID


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("library.display_name", {"display_name": "x" * 256}),
        ("library.description", {"description": "x" * 4097}),
        ("library.capacity", {"capacity": -1}),
    ],
)
def test_fields_of_a_library_are_limited(field: str, fields: dict[str, Any]) -> None:
    error = refusal(read_library_fields, library_pb2.Library(**fields))
    assert error.fields[0].field == field
