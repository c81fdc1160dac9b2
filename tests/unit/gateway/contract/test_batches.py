"""Reading of batches: valid items, and errors in the place of invalid items."""

from __future__ import annotations

import pytest

from imagesearch.gateway.v1 import image_pb2, search_pb2
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.gateway.contract.batches import read_new_images, read_searches
from imagesearch_services.gateway.model import NewImage
from imagesearch_services.gateway.search.request import SearchRequest
from tests.unit.gateway.contract.requests import add, refusal, search


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


def test_an_invalid_search_of_a_batch_becomes_an_error_in_its_place() -> None:
    batch = search_pb2.BatchSearchImagesRequest(
        parent="libraries/shop", requests=[search(parent=""), search(filter="(")]
    )
    valid, invalid = read_searches(batch)
    assert isinstance(valid, SearchRequest)
    assert isinstance(invalid, ServiceError)
