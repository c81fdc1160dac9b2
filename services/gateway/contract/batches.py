"""Conversion of batch messages. An invalid item is replaced by its error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from imagesearch.gateway.v1 import image_pb2, search_pb2
from imagesearch_services.common.errors import ServiceError, field_error
from imagesearch_services.common.status import to_status
from imagesearch_services.gateway import names
from imagesearch_services.gateway.contract import limits
from imagesearch_services.gateway.contract.images import read_new_image, write_image
from imagesearch_services.gateway.contract.searches import read_search, write_search_answer
from imagesearch_services.gateway.model import NewImage, StoredImage
from imagesearch_services.gateway.search.answer import SearchAnswer
from imagesearch_services.gateway.search.request import SearchRequest


def read_new_images(request: image_pb2.BatchAddImagesRequest) -> list[NewImage | ServiceError]:
    """Return the items of a batch, with an error in the place of each invalid item."""
    limits.check_count(len(request.requests), limits.MAX_BATCH_ITEMS, field="requests")
    return [
        _or_error(read_new_image, _with_parent(request.parent, item)) for item in request.requests
    ]


def write_added_images(
    results: Iterable[StoredImage | ServiceError],
) -> image_pb2.BatchAddImagesResponse:
    messages = [
        image_pb2.BatchAddImagesResult(error=to_status(result))
        if isinstance(result, ServiceError)
        else image_pb2.BatchAddImagesResult(image=write_image(result))
        for result in results
    ]
    return image_pb2.BatchAddImagesResponse(
        results=messages, added_count=sum(result.HasField("image") for result in messages)
    )


def read_searches(
    request: search_pb2.BatchSearchImagesRequest,
) -> list[SearchRequest | ServiceError]:
    """Return the items of a batch, with an error in the place of each invalid item."""
    names.parse_library_name(request.parent, field="parent")
    limits.check_count(len(request.requests), limits.MAX_BATCH_ITEMS, field="requests")
    searches = [
        _or_error(read_search, _with_parent(request.parent, item)) for item in request.requests
    ]
    return _share_answer_bytes(searches)


def write_search_answers(
    results: Iterable[SearchAnswer | ServiceError],
) -> search_pb2.BatchSearchImagesResponse:
    return search_pb2.BatchSearchImagesResponse(
        results=[
            search_pb2.BatchSearchImagesResult(error=to_status(result))
            if isinstance(result, ServiceError)
            else search_pb2.BatchSearchImagesResult(response=write_search_answer(result))
            for result in results
        ]
    )


def _share_answer_bytes(
    searches: list[SearchRequest | ServiceError],
) -> list[SearchRequest | ServiceError]:
    """Divide the bytes of one response among the thumbnails and drawings of all searches."""
    valid = [search for search in searches if isinstance(search, SearchRequest)]
    thumbnail_searches = sum(search.thumbnail_bytes > 0 for search in valid)
    drawing_searches = sum(search.drawing is not None for search in valid)
    # If both are requested, each kind gets half of the response.
    kinds = bool(thumbnail_searches) + bool(drawing_searches)
    return [
        replace(
            search,
            thumbnail_bytes=search.thumbnail_bytes // (kinds * thumbnail_searches)
            if thumbnail_searches
            else 0,
            drawing=search.drawing
            and replace(
                search.drawing, max_bytes=search.drawing.max_bytes // (kinds * drawing_searches)
            ),
        )
        if isinstance(search, SearchRequest)
        else search
        for search in searches
    ]


def _with_parent(parent: str, item: Any) -> Any:
    """Return the item with the parent of the batch, or an error if it has another parent."""
    if not item.parent:
        item.parent = parent
    elif item.parent != parent:
        return field_error("parent", f"must be {parent} or empty inside a batch")
    return item


def _or_error(read: Callable[[Any], Any], item: Any) -> Any:
    if isinstance(item, ServiceError):
        return item
    try:
        return read(item)
    except ServiceError as error:
        return error
