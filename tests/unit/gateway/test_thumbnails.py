"""Thumbnails in the Gateway: when they are loaded, and the warnings for missing thumbnails."""

from __future__ import annotations

import pytest

from imagesearch.gateway.v1 import search_pb2
from imagesearch.type.v1 import picture_pb2
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import StepTiming
from imagesearch_services.gateway.contract.batches import read_searches
from imagesearch_services.gateway.contract.searches import read_search
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.library.images import Images
from imagesearch_services.gateway.model import ImageFields, LibraryFields, NewImage, Relation
from imagesearch_services.gateway.search.answer import Match, SearchAnswer
from imagesearch_services.gateway.search.request import SearchRequest
from imagesearch_services.gateway.search.thumbnails import MAX_ANSWER_BYTES, with_thumbnails
from imagesearch_services.gateway.settings import AddSettings
from tests.unit.gateway.fakes import FakeCatalog, FakeEmbedding, library, stored

UNAVAILABLE = ServiceError(Reason.BLOB_STORE_UNAVAILABLE, "the store is unavailable")


def images(catalog: FakeCatalog, embedding: FakeEmbedding | None = None) -> Images:
    return Images(embedding or FakeEmbedding(), catalog, LibraryCache(catalog), AddSettings())


def answer(*image_ids: str) -> SearchAnswer:
    matches = [
        Match(
            image=stored(image_id),
            relation=Relation.SAME,
            score=1,
            similarity=1,
            false_positive_rate=0,
            query_box=None,
        )
        for image_id in image_ids
    ]
    return SearchAnswer(
        matches=matches,
        next_page_token="",
        total_found=len(matches),
        total_is_lower_bound=False,
        searched_region=None,
        query_info=None,
        models=[],
        thresholds=[],
        timings=[StepTiming("query", 2), StepTiming("total", 3)],
        warnings=["earlier warning"],
    )


def request(**fields: object) -> search_pb2.SearchImagesRequest:
    image = picture_pb2.ImageContent(content=b"x")
    return search_pb2.SearchImagesRequest(parent="libraries/shop", image=image, **fields)


async def test_the_thumbnail_is_stored_with_the_image() -> None:
    embedding, catalog = FakeEmbedding(), FakeCatalog()
    await images(catalog, embedding).add(
        "shop", NewImage(image_id="a", content=b"good", fields=ImageFields())
    )
    assert embedding.thumbnail_sides == [320]
    assert catalog.puts[0][0].thumbnail == b"thumbnail of good"


async def test_a_library_without_thumbnails_stores_no_thumbnail() -> None:
    embedding = FakeEmbedding()
    catalog = FakeCatalog(library(fields=LibraryFields(thumbnails_disabled=True)))
    await images(catalog, embedding).add(
        "shop", NewImage(image_id="a", content=b"good", fields=ImageFields())
    )
    assert embedding.thumbnail_sides == [0]
    assert catalog.puts[0][0].thumbnail == b""


async def test_a_missing_thumbnail_and_a_missing_image_are_different_errors() -> None:
    catalog = FakeCatalog(images={"a": stored("a")})
    with pytest.raises(ServiceError) as caught:
        await images(catalog).thumbnail("shop", "a")
    assert caught.value.reason is Reason.THUMBNAIL_NOT_FOUND
    assert caught.value.metadata == {"image": "libraries/shop/images/a"}
    with pytest.raises(ServiceError) as caught:
        await images(catalog).thumbnail("shop", "missing")
    assert caught.value.reason is Reason.IMAGE_NOT_FOUND


async def test_matches_get_their_thumbnails_and_the_step_is_timed() -> None:
    catalog = FakeCatalog(thumbnails={"a": b"A", "c": b"C"})
    shown = await with_thumbnails(
        catalog, "shop", "1" * 32, answer("a", "b", "c"), MAX_ANSWER_BYTES
    )
    assert [match.thumbnail for match in shown.matches] == [b"A", b"", b"C"]
    assert shown.warnings == ["earlier warning"]
    assert [timing.step for timing in shown.timings] == ["query", "thumbnails", "total"]
    assert shown.timings[2].duration_ms >= 3 + shown.timings[1].duration_ms


async def test_an_unavailable_store_is_a_warning_of_the_answer() -> None:
    catalog = FakeCatalog(thumbnail_error=UNAVAILABLE)
    shown = await with_thumbnails(catalog, "shop", "1" * 32, answer("a"), MAX_ANSWER_BYTES)
    assert [match.image.image_id for match in shown.matches] == ["a"]
    assert shown.warnings == [
        "earlier warning",
        "thumbnails: not included: the store is unavailable",
    ]


async def test_thumbnails_that_do_not_fit_are_left_out_and_counted() -> None:
    catalog = FakeCatalog(thumbnails=dict.fromkeys("abcd", b"123"))
    shown = await with_thumbnails(catalog, "shop", "1" * 32, answer(*"abcd"), 7)
    assert [match.thumbnail for match in shown.matches] == [b"123", b"123", b"", b""]
    assert (
        shown.warnings[-1]
        == "thumbnails: 2 left out: the limit for all thumbnails is 7 bytes; request a smaller page"
    )


def test_the_searches_of_a_batch_share_the_size_limit() -> None:
    batch = search_pb2.BatchSearchImagesRequest(
        parent="libraries/shop",
        requests=[request(include_thumbnails=True), request(), request(include_thumbnails=True)],
    )
    searches = read_searches(batch)
    assert [search.thumbnail_bytes for search in searches if isinstance(search, SearchRequest)] == [
        MAX_ANSWER_BYTES // 2,
        0,
        MAX_ANSWER_BYTES // 2,
    ]
    assert read_search(request(include_thumbnails=True)).thumbnail_bytes == MAX_ANSWER_BYTES


def test_thumbnails_and_drawings_of_a_batch_fit_in_one_answer() -> None:
    both = request(include_thumbnails=True)
    both.annotation.SetInParent()
    batch = search_pb2.BatchSearchImagesRequest(parent="libraries/shop", requests=[both] * 4)
    searches = [search for search in read_searches(batch) if isinstance(search, SearchRequest)]
    total_bytes = sum(
        search.thumbnail_bytes + (search.drawing.max_bytes if search.drawing else 0)
        for search in searches
    )
    assert len(searches) == 4
    assert total_bytes < 28 * 1024 * 1024
