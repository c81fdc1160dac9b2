"""Searches through the real Embedding, Triton and Catalog."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from PIL import Image

from imagesearch.catalog.v1 import catalog_service_pb2 as catalog_pb
from imagesearch.catalog.v1 import catalog_service_pb2_grpc as catalog_pb_grpc
from imagesearch.gateway.v1 import image_pb2, search_pb2
from imagesearch.type.v1 import category_pb2, geometry_pb2, picture_pb2, tag_pb2
from imagesearch_services.common.errors import Reason
from imagesearch_services.gateway.search.page_tokens import PageTokens
from imagesearch_services.gateway.search.pinned_ranking import PinnedRanking
from imagesearch_services.gateway.tokens import TokenKey
from tests.e2e.errors import read, refused
from tests.integration.gateway.conftest import Stub, temporary_library
from tests.integration.gateway.pictures import image
from tests.pictures import encoded, photo

STORED = 15
UNRELATED = 15
SIMILAR = search_pb2.RELATION_SIMILAR


@pytest.fixture(scope="module")
def stocked(gateway: Stub) -> Iterator[str]:
    """A library of photos 0 to 14; read-only."""
    with temporary_library(gateway) as name:
        answer = gateway.BatchAddImages(
            image_pb2.BatchAddImagesRequest(
                parent=name,
                requests=[
                    image_pb2.AddImageRequest(
                        image_id=f"p{row}",
                        image=image(row),
                        entity_id=f"e{row % 4}" if row else "",
                        tags={"n": tag_pb2.TagValue(int_value=row)},
                        category=category_pb2.CATEGORY_BAG if row < 5 else 0,  # type: ignore[arg-type]
                    )
                    for row in range(STORED)
                ],
            )
        )
        assert answer.added_count == STORED
        yield name


def request(parent: str, seed: int = 3, **fields: Any) -> search_pb2.SearchImagesRequest:
    return search_pb2.SearchImagesRequest(**{"parent": parent, "image": image(seed), **fields})


def ids(answer: search_pb2.SearchImagesResponse) -> list[str]:
    return [match.image.image_id for match in answer.matches]


def test_a_stored_picture_is_the_first_match_with_all_fields_set(
    gateway: Stub, stocked: str
) -> None:
    answer = gateway.SearchImages(request(stocked))
    best = answer.matches[0]
    assert best.image == gateway.GetImage(image_pb2.GetImageRequest(name=f"{stocked}/images/p3"))
    assert best.relation == search_pb2.RELATION_SAME
    assert best.similarity == pytest.approx(1, abs=1e-3)
    assert best.score > 0.9
    assert best.false_positive_rate < 1e-3
    assert best.box == geometry_pb2.Box(x_max=320, y_max=240)
    assert not best.HasField("query_box")
    assert answer.searched_region == geometry_pb2.Box(x_max=320, y_max=240)
    assert (answer.query_info.width, answer.query_info.media_type) == (320, "image/jpeg")
    assert [(model.role, model.name) for model in answer.models] == [("copy", "sscd")]
    (threshold,) = answer.thresholds
    assert threshold.relation == search_pb2.RELATION_SAME
    assert threshold.false_positive_rate == pytest.approx(0.01, rel=0.01)
    assert all(match.score >= threshold.min_score for match in answer.matches)
    assert {"embed", "embed:decode", "embed:infer", "query", "total"} <= {
        timing.step for timing in answer.timings
    }


def test_an_unrelated_picture_has_no_match(gateway: Stub, stocked: str) -> None:
    answer = gateway.SearchImages(request(stocked, UNRELATED))
    assert (len(answer.matches), answer.total_found, answer.total_is_lower_bound) == (0, 0, False)
    answer = gateway.SearchImages(request(stocked, UNRELATED, max_false_positive_rate=0.5))
    assert not answer.thresholds[0].extrapolated
    answer = gateway.SearchImages(request(stocked, UNRELATED, max_false_positive_rate=1e-9))
    assert answer.thresholds[0].extrapolated


def test_a_hit_that_scores_exactly_the_threshold_is_a_match(gateway: Stub, stocked: str) -> None:
    answer = gateway.SearchImages(request(stocked, relation=SIMILAR, page_size=5))
    bound = answer.matches[4].score
    again = gateway.SearchImages(request(stocked, relation=SIMILAR, min_score=bound))
    assert ids(again) == ids(answer)


def test_the_stricter_of_two_bounds_applies(gateway: Stub, stocked: str) -> None:
    loose, strict = 0.9, 1e-6
    by_rate = gateway.SearchImages(request(stocked, max_false_positive_rate=strict))
    both = gateway.SearchImages(request(stocked, max_false_positive_rate=strict, min_score=0.01))
    assert both.thresholds == by_rate.thresholds
    by_score = gateway.SearchImages(request(stocked, min_score=0.95))
    both = gateway.SearchImages(request(stocked, max_false_positive_rate=loose, min_score=0.95))
    assert both.thresholds == by_score.thresholds


def test_a_region_of_the_query_is_searched(gateway: Stub, stocked: str) -> None:
    pair = Image.new("RGB", (640, 240))
    pair.paste(photo(1), (0, 0))
    pair.paste(photo(2), (320, 0))
    content = picture_pb2.ImageContent(content=encoded(pair, "PNG"))
    region = geometry_pb2.Box(x_min=320, x_max=9999, y_max=240)
    answer = gateway.SearchImages(request(stocked, image=content, region=region))
    assert ids(answer)[0] == "p2"
    assert answer.searched_region == geometry_pb2.Box(x_min=320, x_max=640, y_max=240)


def test_a_pasted_picture_is_found_with_its_place(gateway: Stub, stocked: str) -> None:
    host = photo(UNRELATED, (1000, 800))
    host.paste(photo(3).resize((300, 225)), (520, 120))
    content = picture_pb2.ImageContent(content=encoded(host, "JPEG", quality=90))
    answer = gateway.SearchImages(request(stocked, image=content))
    assert ids(answer) == ["p3"]
    box = answer.matches[0].query_box
    assert (box.x_min, box.y_min) == pytest.approx((520, 120), abs=30)
    assert (box.x_max, box.y_max) == pytest.approx((820, 345), abs=30)
    assert {"embed_regions", "query_regions"} <= {timing.step for timing in answer.timings}


def test_similar_returns_the_nearest_images_and_both_returns_each_image_once(
    gateway: Stub, stocked: str
) -> None:
    answer = gateway.SearchImages(request(stocked, relation=SIMILAR, page_size=100))
    assert sorted(ids(answer)) == sorted(f"p{row}" for row in range(STORED))
    assert ids(answer)[0] == "p3"
    scores = [match.score for match in answer.matches]
    assert scores == sorted(scores, reverse=True)
    assert [model.role for model in answer.models] == ["semantic"]
    answer = gateway.SearchImages(
        request(stocked, relation=search_pb2.RELATION_BOTH, page_size=100)
    )
    assert sorted(ids(answer)) == sorted(f"p{row}" for row in range(STORED))
    relations = [match.relation for match in answer.matches]
    assert relations == sorted(relations)
    assert answer.matches[0].relation == search_pb2.RELATION_SAME


def test_filter_category_and_entities_narrow_a_search(gateway: Stub, stocked: str) -> None:
    def found(**fields: Any) -> set[str]:
        answer = gateway.SearchImages(request(stocked, relation=SIMILAR, page_size=100, **fields))
        assert answer.total_found == len(answer.matches)
        return set(ids(answer))

    assert found(filter="tags.n >= 12") == {"p12", "p13", "p14"}
    assert found(category=category_pb2.CATEGORY_BAG) == {f"p{row}" for row in range(5)}
    assert found(category=category_pb2.CATEGORY_BAG, filter="tags.n > 2 OR tags.n = 0") == {
        "p0",
        "p3",
        "p4",
    }
    assert found(category=category_pb2.CATEGORY_TOY) == set()
    distinct = found(distinct_entities=True)
    assert len(distinct) == 5
    assert {"p0", "p3"} <= distinct


def test_a_stored_query_is_not_among_its_matches(gateway: Stub, stocked: str) -> None:
    by_name = search_pb2.SearchImagesRequest(
        parent=stocked, image_name=f"{stocked}/images/p3", relation=SIMILAR, page_size=100
    )
    answer = gateway.SearchImages(by_name)
    assert sorted(ids(answer)) == sorted(f"p{row}" for row in range(STORED) if row != 3)
    assert not answer.HasField("searched_region")
    assert not answer.HasField("query_info")
    by_picture = gateway.SearchImages(request(stocked, relation=SIMILAR, page_size=100))
    assert ids(by_picture)[1:] == ids(answer)
    by_name.image_name = f"{stocked}/images/none"
    assert refused(gateway.SearchImages, by_name).reason is Reason.IMAGE_NOT_FOUND


def test_later_pages_are_served_by_any_gateway_and_do_not_change(
    gateways: Any, gateway: Stub, library: str
) -> None:
    def add(row: int) -> image_pb2.AddImageRequest:
        return image_pb2.AddImageRequest(parent=library, image_id=f"p{row}", image=image(row))

    gateway.BatchAddImages(
        image_pb2.BatchAddImagesRequest(parent=library, requests=[add(row) for row in range(9)])
    )
    whole = ids(gateway.SearchImages(request(library, relation=SIMILAR)))
    answer = gateway.SearchImages(request(library, relation=SIMILAR, page_size=4))
    gateway.AddImage(add(20))
    deleted = whole[5]
    gateway.DeleteImage(image_pb2.DeleteImageRequest(name=f"{library}/images/{deleted}"))
    listed = ids(answer)
    other = gateways.start()
    while answer.next_page_token:
        answer = other.SearchImages(
            search_pb2.SearchImagesRequest(
                parent=library, page_token=answer.next_page_token, page_size=4
            )
        )
        assert answer.total_found == 9
        assert answer.query_info.width == 320
        listed += ids(answer)
    assert listed == [name for name in whole if name != deleted]


def test_a_foreign_or_expired_page_token_is_refused(
    gateway: Stub, stocked: str, catalog_target: str
) -> None:
    first = gateway.SearchImages(request(stocked, relation=SIMILAR, page_size=4))
    token = first.next_page_token

    def refusal(**fields: Any) -> Reason:
        page = search_pb2.SearchImagesRequest(**{"parent": stocked, "page_token": token, **fields})
        return refused(gateway.SearchImages, page).reason

    assert refusal(page_token=token[:-4] + "AAAA") is Reason.PAGE_TOKEN_INVALID
    assert refusal(page_token="bm8") is Reason.PAGE_TOKEN_INVALID  # noqa: S106
    assert refusal(parent="libraries/other") is Reason.PAGE_TOKEN_INVALID
    assert refusal(filter="width = 1") is Reason.PAGE_TOKEN_INVALID
    assert refusal(image=image(4)) is Reason.PAGE_TOKEN_INVALID
    with grpc.insecure_channel(catalog_target) as channel:
        catalog = catalog_pb_grpc.CatalogServiceStub(channel)
        key = catalog.GetPageTokenKey(catalog_pb.GetPageTokenKeyRequest()).key
    eleven_minutes_ago = PageTokens(TokenKey(key), lambda: time.time() - 660)
    old = eleven_minutes_ago.encode(
        PinnedRanking(
            library_id=stocked.partition("/")[2],
            library_uid="",
            request={},
            total_found=0,
            total_is_lower_bound=False,
            searched_region=None,
            query_info=None,
            thresholds=(),
            regions=(),
            matches=(),
        )
    )
    assert refusal(page_token=old) is Reason.PAGE_TOKEN_EXPIRED
    again = search_pb2.SearchImagesRequest(
        parent=stocked, image=image(3), relation=SIMILAR, page_token=token
    )
    assert len(gateway.SearchImages(again).matches) == 10


@pytest.mark.parametrize("relation", [1, 2, 3])
def test_an_empty_library_has_no_matches(gateway: Stub, library: str, relation: int) -> None:
    answer = gateway.SearchImages(request(library, relation=relation))
    assert (len(answer.matches), answer.total_found, answer.next_page_token) == (0, 0, "")


def test_an_image_is_found_as_soon_as_it_is_added(gateway: Stub, library: str) -> None:
    for row in range(4):
        gateway.SearchImages(request(library, row))
        gateway.AddImage(
            image_pb2.AddImageRequest(parent=library, image_id=f"p{row}", image=image(row))
        )
        assert ids(gateway.SearchImages(request(library, row)))[0] == f"p{row}"


def test_a_batch_answers_each_search_on_its_own_and_in_order(gateway: Stub, stocked: str) -> None:
    answer = gateway.BatchSearchImages(
        search_pb2.BatchSearchImagesRequest(
            parent=stocked,
            requests=[
                *(request("", row) for row in range(12)),
                request("", image=picture_pb2.ImageContent(content=b"not a picture")),
                request("", filter="("),
                request("libraries/other"),
                request("", 14),
            ],
        )
    )
    found = [result.response.matches[0].image.image_id for result in answer.results[:12]]
    assert found == [f"p{row}" for row in range(12)]
    assert [read(result.error).reason for result in answer.results[12:15]] == [
        Reason.IMAGE_UNREADABLE,
        Reason.FILTER_INVALID,
        Reason.FIELD_INVALID,
    ]
    assert answer.results[15].response.matches[0].image.image_id == "p14"


def test_concurrent_searches_do_not_mix(gateway: Stub, stocked: str) -> None:
    rows = [row % STORED for row in range(45)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda row: gateway.SearchImages(request(stocked, row)), rows))
    assert [ids(answer)[0] for answer in answers] == [f"p{row}" for row in rows]


def test_unsupported_fields_and_missing_libraries_are_refused(gateway: Stub, stocked: str) -> None:
    error = refused(gateway.SearchImages, request(stocked, subject_detection=True))
    assert error.reason is Reason.LIBRARY_TYPE_MISMATCH
    assert error.metadata == {"library": stocked, "type": "WHOLE_IMAGE"}
    error = refused(gateway.SearchImages, request("libraries/none"))
    assert error.reason is Reason.LIBRARY_NOT_FOUND
