"""Annotated images: their content, and the warnings for failed drawings."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from imagesearch.gateway.v1 import search_pb2
from imagesearch.type.v1 import picture_pb2
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Box, Category, Color, StepTiming, Subject
from imagesearch_services.gateway.contract.batches import read_searches
from imagesearch_services.gateway.model import (
    DetectionAnswer,
    DrawingOptions,
    DrawingOrder,
    Relation,
)
from imagesearch_services.gateway.search.annotations import Drawings, search_outlines
from imagesearch_services.gateway.search.answer import Match, SearchAnswer
from imagesearch_services.gateway.search.request import PictureQuery, SearchRequest, StoredQuery
from tests.unit.gateway.fakes import INFO, WHOLE, stored

UNAVAILABLE = ServiceError(Reason.BLOB_STORE_UNAVAILABLE, "the store is unavailable")
SHOE = Subject(Box(10, 20, 60, 70), Category.SHOES, 0.934, [Color("navy", "#1c2b5a", 0.61)])
BAG = Subject(Box(50, 5, 90, 40), Category.DIGITAL_DEVICE, 0.4)


@dataclass
class FakeRenderer:
    """Records the requested drawings."""

    orders: list[DrawingOrder] = field(default_factory=list)
    error: ServiceError | None = None

    async def draw(self, order: DrawingOrder) -> bytes:
        self.orders.append(order)
        if self.error:
            raise self.error
        return b"drawing"


@dataclass
class FakeThumbnailStore:
    """Has a thumbnail of every image except those in `without`."""

    without: Sequence[str] = ()
    error: ServiceError | None = None
    loaded: list[str] = field(default_factory=list)

    async def get_thumbnails(
        self, library_id: str, image_ids: Sequence[str], *, library_uid: str = ""
    ) -> Sequence[bytes]:
        del library_uid
        assert library_id == "shop"
        self.loaded += image_ids
        if self.error:
            raise self.error
        return [
            b"" if image_id in self.without else f"thumbnail {image_id}".encode()
            for image_id in image_ids
        ]


def match(image_id: str, score: float = 0.5, query_box: Box | None = None) -> Match:
    return Match(
        image=stored(image_id),
        relation=Relation.SAME,
        score=score,
        similarity=score,
        false_positive_rate=0,
        query_box=query_box,
    )


def answer(*matches: Match, **changes: object) -> SearchAnswer:
    default = SearchAnswer(
        matches=matches,
        next_page_token="",
        total_found=len(matches),
        total_is_lower_bound=False,
        searched_region=WHOLE,
        query_info=INFO,
        models=(),
        thresholds=(),
        timings=[StepTiming("query", 3.0), StepTiming("total", 5.0)],
    )
    return replace(default, **changes)  # type: ignore[arg-type]


def request(
    query: PictureQuery | StoredQuery | None, drawing: DrawingOptions | None, **changes: object
) -> SearchRequest:
    default = SearchRequest(
        library_id="shop", query=query, filter=None, page_size=10, drawing=drawing
    )
    return replace(default, **changes)  # type: ignore[arg-type]


PICTURE = PictureQuery(b"picture")
TWO_MATCHES = DrawingOptions(match_count=2)
THREE_MATCHES = (match("a", 0.984), match("b", 0.7), match("c", 0.6))


async def test_nothing_is_drawn_unless_requested() -> None:
    renderer, store = FakeRenderer(), FakeThumbnailStore()
    plain = answer(*THREE_MATCHES)
    assert await Drawings(renderer, store).add_to_search(plain, request(PICTURE, None)) is plain
    assert renderer.orders == []
    assert store.loaded == []


async def test_the_first_matches_are_drawn_with_rank_score_and_id() -> None:
    renderer = FakeRenderer()
    drawn = await Drawings(renderer, FakeThumbnailStore(without=["b"])).add_to_search(
        answer(*THREE_MATCHES), request(PICTURE, TWO_MATCHES)
    )
    assert drawn.annotated_image == b"drawing"
    assert list(drawn.warnings) == []
    (order,) = renderer.orders
    assert order.content == b"picture"
    assert [thumbnail.content for thumbnail in order.matches] == [b"thumbnail a", b""]
    assert [list(thumbnail.lines) for thumbnail in order.matches] == [
        ["1 · 0.98", "a"],
        ["2 · 0.70", "b"],
    ]


async def test_drawing_is_a_step_and_part_of_the_total() -> None:
    started_s = time.perf_counter()
    drawn = await Drawings(FakeRenderer(), FakeThumbnailStore()).add_to_search(
        answer(), request(PICTURE, TWO_MATCHES)
    )
    elapsed_ms = 1e3 * (time.perf_counter() - started_s)
    times = {timing.step: timing.duration_ms for timing in drawn.timings}
    assert list(times) == ["query", "draw", "total"]
    assert 5 + times["draw"] <= times["total"] <= 5 + elapsed_ms


async def test_thumbnails_that_came_with_the_hits_are_not_loaded_again() -> None:
    renderer, store = FakeRenderer(), FakeThumbnailStore()
    found = answer(match("a"), match("b"), thumbnails={"a": b"held", "b": b""})
    await Drawings(renderer, store).add_to_search(found, request(PICTURE, TWO_MATCHES))
    assert store.loaded == []
    assert [thumbnail.content for thumbnail in renderer.orders[0].matches] == [b"held", b""]


async def test_a_store_that_failed_during_the_search_is_not_called_again() -> None:
    renderer, store = FakeRenderer(), FakeThumbnailStore()
    found = answer(match("a"), match("b"), thumbnails={"a": UNAVAILABLE, "b": UNAVAILABLE})
    drawn = await Drawings(renderer, store).add_to_search(found, request(PICTURE, TWO_MATCHES))
    assert store.loaded == []
    assert drawn.annotated_image == b"drawing"
    assert drawn.warnings == ["annotated_image: drawn without thumbnails: the store is unavailable"]


async def test_an_unavailable_store_leaves_empty_frames_and_a_warning() -> None:
    renderer = FakeRenderer()
    drawn = await Drawings(renderer, FakeThumbnailStore(error=UNAVAILABLE)).add_to_search(
        answer(*THREE_MATCHES), request(PICTURE, TWO_MATCHES)
    )
    assert drawn.annotated_image == b"drawing"
    assert [thumbnail.content for thumbnail in renderer.orders[0].matches] == [b"", b""]
    (warning,) = drawn.warnings
    assert warning == "annotated_image: drawn without thumbnails: the store is unavailable"


async def test_a_drawing_that_fails_leaves_the_answer_with_a_warning() -> None:
    renderer = FakeRenderer(error=ServiceError(Reason.OVERLOADED, "too much to do"))
    plain = answer(*THREE_MATCHES, warnings=["first"])
    drawn = await Drawings(renderer, FakeThumbnailStore()).add_to_search(
        plain, request(PICTURE, TWO_MATCHES)
    )
    assert drawn.matches == plain.matches
    assert drawn.annotated_image == b""
    assert list(drawn.warnings) == ["first", "annotated_image: not drawn: too much to do"]


async def test_a_stored_query_is_drawn_as_its_thumbnail() -> None:
    renderer = FakeRenderer()
    found = answer(*THREE_MATCHES, searched_region=None, query_info=None)
    drawn = await Drawings(renderer, FakeThumbnailStore()).add_to_search(
        found, request(StoredQuery("q"), TWO_MATCHES)
    )
    assert drawn.annotated_image == b"drawing"
    assert renderer.orders[0].content == b"thumbnail q"
    without = await Drawings(renderer, FakeThumbnailStore(without=["q"])).add_to_search(
        found, request(StoredQuery("q"), TWO_MATCHES)
    )
    assert without.annotated_image == b""
    assert "stored images have no pixels" in without.warnings[0]


async def test_a_later_page_is_drawn_if_the_picture_is_sent_again() -> None:
    drawings = Drawings(FakeRenderer(), FakeThumbnailStore())
    later = await drawings.add_to_search(answer(match("k")), request(None, TWO_MATCHES))
    assert "send the picture again with the page token" in later.warnings[0]
    with_query = await drawings.add_to_search(answer(match("k")), request(PICTURE, TWO_MATCHES))
    assert with_query.annotated_image == b"drawing"


async def test_the_ranks_of_a_later_page_continue() -> None:
    renderer = FakeRenderer()
    later = answer(match("k", query_box=SHOE.box), match("l"), first_rank=11)
    await Drawings(renderer, FakeThumbnailStore()).add_to_search(
        later, request(PICTURE, TWO_MATCHES)
    )
    (order,) = renderer.orders
    assert [thumbnail.lines[0] for thumbnail in order.matches] == ["11 · 0.50", "12 · 0.50"]
    assert order.outlines[0].lines == ["11 · 0.50 · k"]


async def test_a_drawing_that_does_not_fit_the_answer_is_left_out() -> None:
    drawn = await Drawings(FakeRenderer(), FakeThumbnailStore()).add_to_search(
        answer(), request(PICTURE, DrawingOptions(max_bytes=6))
    )
    assert drawn.annotated_image == b""
    assert "7 bytes and the answer has room for 6" in drawn.warnings[0]


def test_the_drawings_of_a_batch_share_the_size_limit_of_the_answer() -> None:
    item = search_pb2.SearchImagesRequest(
        image=picture_pb2.ImageContent(content=b"x"), annotation=search_pb2.AnnotationOptions()
    )
    batch = search_pb2.BatchSearchImagesRequest(parent="libraries/shop", requests=[item] * 4)
    limits = [
        search.drawing.max_bytes
        for search in read_searches(batch)
        if isinstance(search, SearchRequest) and search.drawing
    ]
    assert limits == [DrawingOptions().max_bytes // 4] * 4


def test_matched_parts_of_the_query_are_outlined_but_not_the_whole_query() -> None:
    part, other = Box(5, 5, 40, 40), Box(50, 50, 90, 70)
    outlines = search_outlines(
        answer(
            match("a", 0.9, part), match("b", 0.8), match("c", 0.7, other), match("d", 0.6, part)
        )
    )
    assert [outline.shape for outline in outlines] == [part, other]
    assert list(outlines[0].lines) == ["1 · 0.90 · a", "4 · 0.60 · d"]
    assert [outline.is_highlighted for outline in outlines] == [True, False]


def test_every_instance_of_an_element_is_outlined_by_its_corners() -> None:
    tilted = ((10.0, 12.0), (40.0, 20.0), (35.0, 50.0), (6.0, 44.0))
    second = ((60.0, 12.0), (90.0, 20.0), (85.0, 50.0), (56.0, 44.0))
    found = replace(match("logo", 0.9, Box(6, 12, 40, 50)), instances=(tilted, second))
    outlines = search_outlines(answer(found))
    assert [outline.shape for outline in outlines] == [tilted, second]
    assert [list(outline.lines) for outline in outlines] == [["1 · 0.90 · logo"]] * 2


def test_the_searched_region_is_outlined_unless_it_is_the_whole_query() -> None:
    assert search_outlines(answer()) == []
    region = Box(10, 10, 60, 60)
    (outline,) = search_outlines(answer(searched_region=region))
    assert outline.shape == region
    assert list(outline.lines) == []


def test_subjects_have_category_score_and_colors_and_the_chosen_subject_is_highlighted() -> None:
    outlines = search_outlines(answer(subjects=[SHOE, BAG], chosen_subject=1))
    assert [list(outline.lines) for outline in outlines] == [
        ["Shoes 0.93", "navy 61%"],
        ["Digital device 0.40"],
    ]
    assert [outline.is_highlighted for outline in outlines] == [False, True]


async def test_detected_subjects_are_drawn_and_a_failed_drawing_is_an_error() -> None:
    found = DetectionAnswer(
        subjects=[SHOE, BAG], info=INFO, models=(), timings=[StepTiming("total", 5.0)]
    )
    renderer = FakeRenderer()
    drawn = await Drawings(renderer, FakeThumbnailStore()).add_to_detection(
        found, PICTURE, TWO_MATCHES
    )
    assert drawn.annotated_image == b"drawing"
    assert [outline.is_highlighted for outline in renderer.orders[0].outlines] == [True, False]
    with pytest.raises(ServiceError, match="store is unavailable"):
        await Drawings(FakeRenderer(error=UNAVAILABLE), FakeThumbnailStore()).add_to_detection(
            found, PICTURE, TWO_MATCHES
        )
    with pytest.raises(ServiceError, match="7 bytes and the answer has room for 6") as caught:
        await Drawings(FakeRenderer(), FakeThumbnailStore()).add_to_detection(
            found, PICTURE, DrawingOptions(max_bytes=6)
        )
    assert caught.value.reason is Reason.FIELD_INVALID
