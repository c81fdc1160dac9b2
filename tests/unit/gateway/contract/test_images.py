"""Reading of image requests: values, and errors by field."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import field_mask_pb2

from imagesearch.gateway.v1 import image_pb2
from imagesearch.type.v1 import category_pb2, geometry_pb2, picture_pb2, tag_pb2
from imagesearch_services.common.errors import Reason
from imagesearch_services.common.types import Category
from imagesearch_services.gateway.contract.images import (
    read_image_changes,
    read_images_to_delete,
    read_new_image,
)
from imagesearch_services.gateway.contract.limits import MAX_IMAGE_BYTES
from imagesearch_services.gateway.filters import Comparison, Operator
from tests.unit.gateway.contract.requests import add, refusal


def mask(*paths: str) -> field_mask_pb2.FieldMask:
    return field_mask_pb2.FieldMask(paths=paths)


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
    too_large = picture_pb2.ImageContent(content=bytes(MAX_IMAGE_BYTES + 1))
    error = refusal(read_new_image, add(image=too_large))
    assert error.reason is Reason.IMAGE_TOO_LARGE
    assert error.metadata == {"limit": "10485760", "actual": "10485761", "unit": "bytes"}


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
def test_invalid_tags_in_an_update_mask_are_rejected(paths: tuple[str, ...]) -> None:
    error = refusal(read_image_changes, image_pb2.UpdateImageRequest(update_mask=mask(*paths)))
    assert error.fields[0].field == "update_mask"


def test_images_to_delete_are_selected_by_exactly_one_field() -> None:
    def read(**fields: Any) -> Any:
        return read_images_to_delete(image_pb2.DeleteImagesRequest(**fields), "shop")

    assert read(names=["libraries/shop/images/a"]) == ["a"]
    assert read(entity_id="e") == Comparison("entity_id", Operator.EQUAL, "e")
    assert read(filter="width = 1") == Comparison("width", Operator.EQUAL, 1)
    for selection in ({}, {"filter": "  "}):
        assert refusal(lambda: read(**selection)).reason is Reason.FIELD_REQUIRED  # noqa: B023
    assert refusal(lambda: read(entity_id="e", filter="f")).fields[0].field == "filter"
    names = ["libraries/shop/images/a", "libraries/other/images/a"]
    assert refusal(lambda: read(names=names)).fields[0].field == "names[1]"
    too_many = [f"libraries/shop/images/{row}" for row in range(1001)]
    assert refusal(lambda: read(names=too_many)).fields[0].field == "names"
