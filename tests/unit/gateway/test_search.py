"""Searches of whole-image libraries: calls to the other services, thresholds, rankings, pages."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Box, LibraryType, ModelVersion, Vector
from imagesearch_services.gateway.filters import AllOf, Comparison, Not, Operator
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.model import DrawingOptions, Relation
from imagesearch_services.gateway.search.answer import SearchAnswer
from imagesearch_services.gateway.search.page_tokens import PageTokens
from imagesearch_services.gateway.search.request import PictureQuery, SearchRequest, StoredQuery
from imagesearch_services.gateway.search.searches import Searches
from imagesearch_services.gateway.settings import SearchSettings
from imagesearch_services.gateway.tokens import TokenKey
from tests.unit.gateway.fakes import (
    CALIBRATIONS,
    COPY,
    SEMANTIC,
    WHOLE,
    FakeCatalog,
    FakeEmbedding,
    library,
    stored,
)

CAT = b"cat"
PART = Box(10, 10, 50, 40)
SAME_CAT = (COPY.space, CAT)
LIKE_CAT = (SEMANTIC.space, CAT)
IN_PART = (COPY.space, b"part")
FILTER = Comparison("width", Operator.GREATER, 5)


@dataclass
class Bench:
    """A search service on fakes, with a clock that only the test advances."""

    embedding: FakeEmbedding = field(default_factory=FakeEmbedding)
    catalog: FakeCatalog = field(default_factory=FakeCatalog)
    settings: SearchSettings = field(default_factory=lambda: SearchSettings(min_library_size=1))
    now_s: float = 1000.0

    def __post_init__(self) -> None:
        self.cache = LibraryCache(self.catalog, lambda: self.now_s)
        self.searches = Searches(
            embedding=self.embedding,
            catalog=self.catalog,
            libraries=self.cache,
            calibrations=CALIBRATIONS,
            tokens=PageTokens(TokenKey(b""), lambda: self.now_s),
            settings=self.settings,
        )

    async def search(self, **changes: object) -> SearchAnswer:
        request = SearchRequest(
            library_id="shop", query=PictureQuery(CAT), filter=None, page_size=10
        )
        return await self.searches.search(replace(request, **changes))  # type: ignore[arg-type]


def ids(answer: SearchAnswer) -> list[str]:
    return [match.image.image_id for match in answer.matches]


async def refusal(bench: Bench, **changes: object) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await bench.search(**changes)
    return caught.value


async def test_a_sure_query_costs_one_embedding_and_one_query() -> None:
    bench = Bench()
    bench.catalog.similarities[SAME_CAT] = {"a": 0.95, "b": 0.2}
    answer = await bench.search()
    assert ids(answer) == ["a"]
    assert len(bench.embedding.calls) == len(bench.catalog.queries) == 1
    assert bench.embedding.calls[0][1] == [COPY.space]
    await bench.search()
    assert bench.catalog.library_reads == 1


async def test_an_unsure_query_is_searched_by_its_regions_too() -> None:
    bench = Bench(FakeEmbedding(proposals={PART: b"part", WHOLE: b"nothing"}))
    bench.catalog.similarities[IN_PART] = {"pasted": 0.8}
    answer = await bench.search()
    assert ids(answer) == ["pasted"]
    assert answer.matches[0].query_box == PART
    assert answer.searched_region == WHOLE
    (_, first), (pictures, second) = bench.embedding.calls
    assert first == second == [COPY.space]
    assert bench.embedding.opened_queries == [CAT]
    assert pictures[0].max_proposed_regions == bench.settings.max_proposed_regions
    assert len(bench.catalog.queries[1].vectors) == 2


async def test_a_match_that_is_sure_only_in_a_small_library_is_searched_by_its_regions_too() -> (
    None
):
    bench = Bench(FakeEmbedding(proposals={PART: b"part"}))
    bench.catalog.similarities[SAME_CAT] = {"holds it": 0.55}
    bench.catalog.similarities[IN_PART] = {"holds it": 0.9}
    answer = await bench.search()
    assert len(bench.embedding.calls) == 2
    assert answer.matches[0].query_box == PART


async def test_a_query_that_resembles_unrelated_pictures_needs_a_higher_similarity() -> None:
    similarities = {"a": 0.6, "b": 0.9}
    plain, common = Bench(), Bench(FakeEmbedding(backgrounds={CAT: 0.5}))
    for bench in (plain, common):
        bench.catalog.similarities[SAME_CAT] = similarities
    assert ids(await plain.search()) == ["b", "a"]
    answer = await common.search()
    assert ids(answer) == ["b"]
    # The similarity covers four fifths of the distance between unrelated and identical.
    assert answer.matches[0].score == pytest.approx(CALIBRATIONS.of(COPY).score(0.8))
    assert answer.matches[0].similarity == pytest.approx(0.9)


async def test_whole_and_regions_share_the_rate_and_regions_have_the_higher_threshold() -> None:
    bench = Bench(FakeEmbedding(proposals={PART: b"part", WHOLE: b"nothing"}))
    await bench.search(max_false_positive_rate=0.01)
    whole, regions = (query.min_similarity for query in bench.catalog.queries)
    # 10 stored images, half of the rate each, and a rate of 10 ** (-10 × similarity).
    assert whole == pytest.approx(0.33, abs=0.001)
    assert regions == pytest.approx(0.36, abs=0.001)


async def test_the_threshold_of_a_small_library_is_that_of_a_thousand_images() -> None:
    bench = Bench(settings=SearchSettings(max_proposed_regions=0))
    await bench.search(max_false_positive_rate=0.01)
    assert bench.catalog.queries[0].min_similarity == pytest.approx(0.5, abs=0.001)


async def test_the_rate_of_a_match_covers_its_whole_query() -> None:
    bench = Bench(FakeEmbedding(proposals={PART: b"part", WHOLE: b"nothing"}))
    bench.catalog.similarities[SAME_CAT] = {"a": 0.35}
    bench.catalog.similarities[IN_PART] = {"b": 0.5}
    by_region, by_whole = (await bench.search()).matches
    assert by_whole.false_positive_rate == pytest.approx(10 * 10**-3.5 / 0.5, rel=0.01)
    assert by_region.false_positive_rate == pytest.approx(20 * 10**-5 / 0.5, rel=0.01)


async def test_an_image_found_by_whole_and_region_is_returned_once_with_its_better_hit() -> None:
    bench = Bench(FakeEmbedding(proposals={PART: b"part"}))
    bench.catalog.similarities[SAME_CAT] = {"a": 0.36, "b": 0.35}
    bench.catalog.similarities[IN_PART] = {"b": 0.7}
    answer = await bench.search()
    assert [(match.image.image_id, match.query_box) for match in answer.matches] == [
        ("b", PART),
        ("a", None),
    ]
    assert answer.total_found == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"query": PictureQuery(CAT, PART)},
        {"relations": (Relation.SIMILAR,)},
    ],
)
async def test_regions_are_not_searched_if_the_caller_chose_a_region_or_relation(
    changes: dict[str, object],
) -> None:
    bench = Bench(FakeEmbedding(proposals={PART: b"part"}))
    await bench.search(**changes)
    assert len(bench.embedding.calls) == 1


async def test_the_search_of_regions_can_be_disabled() -> None:
    bench = Bench(settings=SearchSettings(max_proposed_regions=0, min_library_size=1))
    await bench.search(max_false_positive_rate=0.01)
    assert len(bench.embedding.calls) == 1
    assert bench.catalog.queries[0].min_similarity == pytest.approx(0.3, abs=0.001)


async def test_a_query_without_proposed_regions_is_answered_by_the_whole() -> None:
    bench = Bench()
    bench.catalog.similarities[SAME_CAT] = {"a": 0.35}
    assert ids(await bench.search()) == ["a"]
    assert len(bench.catalog.queries) == 1


async def test_similar_without_a_bound_returns_the_nearest_images() -> None:
    bench = Bench()
    bench.catalog.similarities[LIKE_CAT] = {"a": 0.5, "b": -0.5}
    answer = await bench.search(relations=(Relation.SIMILAR,))
    assert ids(answer) == ["a", "b"]
    assert bench.catalog.queries[0].min_similarity is None
    assert bench.embedding.calls[0][1] == [SEMANTIC.space]
    (threshold,) = answer.thresholds
    assert (threshold.min_score, threshold.false_positive_rate) == (0.0, 1.0)


async def test_same_without_a_bound_applies_the_default_rate() -> None:
    (threshold,) = (await Bench().search()).thresholds
    assert threshold.false_positive_rate == pytest.approx(0.01, rel=1e-3)
    (threshold,) = (await Bench().search(min_score=0.2)).thresholds
    assert threshold.min_score == pytest.approx(0.2, abs=1e-4)


async def test_both_relations_share_one_embedding_and_return_each_image_once() -> None:
    bench = Bench()
    bench.catalog.similarities[SAME_CAT] = {"a": 0.9}
    bench.catalog.similarities[LIKE_CAT] = {"a": 0.99, "b": 0.98, "c": 0.5}
    answer = await bench.search(relations=(Relation.SAME, Relation.SIMILAR))
    assert [(match.image.image_id, match.relation) for match in answer.matches] == [
        ("a", Relation.SAME),
        ("b", Relation.SIMILAR),
        ("c", Relation.SIMILAR),
    ]
    assert bench.embedding.calls[0][1] == [COPY.space, SEMANTIC.space]
    assert [model.role for model in answer.models] == ["copy", "semantic"]
    assert [threshold.relation for threshold in answer.thresholds] == [
        Relation.SAME,
        Relation.SIMILAR,
    ]


async def test_an_entity_is_returned_once_over_all_rankings() -> None:
    bench = Bench(FakeEmbedding(proposals={PART: b"part"}))
    bench.catalog.images = {
        name: stored(name, entity_id=entity)
        for name, entity in {"a1": "a", "a2": "a", "b1": "b", "free1": "", "free2": ""}.items()
    }
    bench.catalog.similarities[SAME_CAT] = {"a1": 0.35, "free1": 0.34}
    bench.catalog.similarities[IN_PART] = {"a2": 0.8, "free2": 0.5}
    bench.catalog.similarities[LIKE_CAT] = {"a1": 0.9, "b1": 0.8}
    answer = await bench.search(relations=(Relation.SAME, Relation.SIMILAR), distinct_entities=True)
    assert ids(answer) == ["a2", "free2", "free1", "b1"]
    assert answer.total_found == 4


async def test_a_stored_query_uses_its_vectors_and_excludes_itself() -> None:
    bench = Bench()
    bench.catalog.images["me"] = replace(stored("me"), vectors=[Vector(COPY.space, CAT)])
    bench.catalog.similarities[SAME_CAT] = {"a": 0.9}
    answer = await bench.search(query=StoredQuery("me"), filter=FILTER)
    assert ids(answer) == ["a"]
    assert not bench.embedding.calls
    assert (answer.searched_region, answer.query_info) == (None, None)
    itself = Comparison("image_id", Operator.EQUAL, "me")
    assert bench.catalog.queries[0].filter == AllOf((FILTER, Not(itself)))
    error = await refusal(bench, query=StoredQuery("gone"))
    assert error.reason is Reason.IMAGE_NOT_FOUND
    assert error.metadata == {"image": "libraries/shop/images/gone"}


async def test_all_matches_are_counted_and_can_be_paged() -> None:
    bench = Bench()
    bench.catalog.images = {f"{row:03}": stored(f"{row:03}") for row in range(25)}
    bench.catalog.similarities[LIKE_CAT] = {
        name: 1 - int(name) / 100 for name in bench.catalog.images
    }
    request: dict[str, object] = {"relations": (Relation.SIMILAR,)}
    answer = await bench.search(**request)
    listed, pages = ids(answer), [answer]
    while pages[-1].next_page_token:
        pages.append(
            await bench.search(query=None, page_token=pages[-1].next_page_token, **request)
        )
        listed += ids(pages[-1])
    assert listed == sorted(bench.catalog.images)
    assert [len(page.matches) for page in pages] == [10, 10, 5]
    for page in pages:
        assert (page.total_found, page.total_is_lower_bound) == (25, False)
        assert page.thresholds == pages[0].thresholds
        assert page.query_info == pages[0].query_info
        assert page.models == pages[0].models
    assert pages[2].matches[0].similarity == pytest.approx(0.8)
    assert len(bench.embedding.calls) == 1


async def test_a_full_last_page_has_no_token() -> None:
    bench = Bench()
    bench.catalog.similarities[LIKE_CAT] = {f"{row}": 0.5 for row in range(10)}
    answer = await bench.search(relations=(Relation.SIMILAR,))
    assert len(answer.matches) == answer.total_found == 10
    assert answer.next_page_token == ""
    assert len(bench.catalog.queries) == 1


@pytest.mark.parametrize(
    ("matches", "total", "is_lower_bound"),
    [(999, 999, False), (1000, 1000, False), (1001, 1000, True), (1500, 1000, True)],
)
async def test_the_total_is_exact_up_to_a_thousand_and_a_lower_bound_above(
    matches: int, total: int, is_lower_bound: bool
) -> None:
    bench = Bench()
    bench.catalog.similarities[LIKE_CAT] = {f"{row:04}": 1 - row / 2000 for row in range(matches)}
    answer = await bench.search(relations=(Relation.SIMILAR,))
    assert (answer.total_found, answer.total_is_lower_bound) == (total, is_lower_bound)
    assert bench.catalog.queries[1].image_count == 0


async def test_a_page_that_unrelated_images_fill_costs_one_query() -> None:
    bench = Bench(catalog=FakeCatalog(library(image_count=1500)))
    bench.catalog.similarities[LIKE_CAT] = {f"{row:04}": 1 - row / 2000 for row in range(1500)}
    answer = await bench.search(relations=(Relation.SIMILAR,))
    assert (len(answer.matches), answer.total_found) == (10, 1000)
    assert answer.total_is_lower_bound
    assert answer.next_page_token
    (query,) = bench.catalog.queries
    assert (query.limit, query.image_count) == (1001, 10)
    assert [timing.step for timing in answer.timings] == ["embed", "embed:infer", "query", "total"]


async def test_a_bound_that_few_unrelated_images_reach_queries_one_page_first() -> None:
    bench = Bench(catalog=FakeCatalog(library(image_count=1500)))
    bench.catalog.similarities[LIKE_CAT] = {"a": 0.5}
    await bench.search(relations=(Relation.SIMILAR,), min_score=0.3)
    (query,) = bench.catalog.queries
    assert (query.limit, query.image_count) == (11, 11)


async def test_a_later_page_skips_deleted_images() -> None:
    bench = Bench()
    bench.catalog.images = {f"{row:02}": stored(f"{row:02}") for row in range(30)}
    bench.catalog.similarities[LIKE_CAT] = dict.fromkeys(bench.catalog.images, 0.5)
    answer = await bench.search(relations=(Relation.SIMILAR,))
    for image_id in ("11", "12", "29"):
        del bench.catalog.images[image_id]
    answer = await bench.search(page_token=answer.next_page_token, query=None)
    assert ids(answer) == ["10", *(f"{row}" for row in range(13, 22))]
    answer = await bench.search(page_token=answer.next_page_token, query=None)
    assert ids(answer) == [f"{row}" for row in range(22, 29)]
    assert answer.next_page_token == ""


async def paged() -> tuple[Bench, str]:
    bench = Bench()
    bench.catalog.images = {f"{row:02}": stored(f"{row:02}") for row in range(30)}
    bench.catalog.similarities[LIKE_CAT] = dict.fromkeys(bench.catalog.images, 0.5)
    answer = await bench.search(relations=(Relation.SIMILAR,), field_fingerprints={"filter": "f"})
    return bench, answer.next_page_token


@pytest.mark.parametrize(
    "changes",
    [
        {"field_fingerprints": {"filter": "another"}},
        {"field_fingerprints": {"category": "c"}},
        {"relations": (Relation.SAME,)},
        {"query": PictureQuery(b"dog")},
        {"query": StoredQuery("01")},
        {"library_id": "other"},
    ],
)
async def test_a_token_with_the_fields_of_another_search_is_refused(
    changes: dict[str, object],
) -> None:
    bench, token = await paged()
    request = {"query": None, "page_token": token, **changes}
    assert (await refusal(bench, **request)).reason is Reason.PAGE_TOKEN_INVALID


async def test_a_token_of_a_recreated_library_is_refused() -> None:
    bench, token = await paged()
    bench.catalog.library = library(uid="2" * 32)
    error = await refusal(bench, query=None, page_token=token)
    assert error.reason is Reason.LIBRARY_CHANGED


async def test_a_token_expires_after_ten_minutes() -> None:
    bench, token = await paged()
    bench.now_s += 600
    error = await refusal(bench, query=None, page_token=token)
    assert error.reason is Reason.PAGE_TOKEN_EXPIRED


async def test_a_library_recreated_between_searches_is_searched() -> None:
    bench = Bench()
    bench.catalog.similarities[SAME_CAT] = {"a": 0.9}
    await bench.search()
    bench.catalog.library = library(uid="2" * 32)
    assert ids(await bench.search()) == ["a"]
    bench.catalog.library = library(uid="3" * 32)
    bench.now_s += 5
    assert ids(await bench.search()) == ["a"]


async def test_a_library_recreated_with_other_models_is_searched_with_these() -> None:
    bench = Bench()
    await bench.search()
    new_copy = ModelVersion("copy", "copies", "2")
    bench.catalog.library = library(uid="2" * 32, models=(new_copy, SEMANTIC))
    bench.catalog.similarities[new_copy.space, CAT] = {"a": 0.9}
    bench.now_s += 5
    answer = await bench.search()
    assert ids(answer) == ["a"]
    assert answer.models == [new_copy]


async def test_a_library_recreated_during_each_attempt_is_an_error() -> None:
    bench = Bench()

    def recreate() -> None:
        number = int(bench.catalog.library.uid, 16) + 1
        bench.catalog.library = library(uid=f"{number:032x}")

    bench.embedding.before = recreate
    assert (await refusal(bench)).reason is Reason.LIBRARY_CHANGED


async def test_the_image_count_behind_a_threshold_is_at_most_a_second_old() -> None:
    bench = Bench()
    before = (await bench.search()).thresholds[0].min_score
    bench.catalog.library = library(image_count=10_000)
    assert (await bench.search()).thresholds[0].min_score == before
    bench.now_s += 1
    assert (await bench.search()).thresholds[0].min_score == pytest.approx(before + 0.3, abs=1e-3)


async def test_an_empty_library_has_no_matches() -> None:
    bench = Bench(catalog=FakeCatalog(library(image_count=0)))
    answer = await bench.search(relations=(Relation.SAME, Relation.SIMILAR))
    assert (ids(answer), answer.total_found, answer.next_page_token) == ([], 0, "")


async def test_each_step_is_timed_with_its_parts() -> None:
    bench = Bench(FakeEmbedding(proposals={PART: b"part"}))
    steps = [timing.step for timing in (await bench.search()).timings]
    assert steps == [
        "embed",
        "embed:infer",
        "query",
        "embed_regions",
        "embed_regions:infer",
        "query_regions",
        "total",
    ]


async def test_an_unreadable_picture_is_an_error_of_the_caller() -> None:
    unreadable = ServiceError(Reason.IMAGE_UNREADABLE, "not a picture")
    bench = Bench(FakeEmbedding(failures={CAT: unreadable}))
    assert await refusal(bench) is unreadable


async def test_fields_of_other_library_types_are_refused() -> None:
    bench = Bench()
    error = await refusal(bench, subject_detection=True)
    assert error.reason is Reason.LIBRARY_TYPE_MISMATCH
    bench.catalog.library = library(type=LibraryType.ELEMENT)
    bench.now_s += 100
    assert (await refusal(bench)).reason is Reason.LIBRARY_TYPE_MISMATCH


async def test_thumbnails_of_the_page_come_with_the_hits() -> None:
    bench = Bench()
    bench.catalog.similarities[SAME_CAT] = {"a": 0.95, "b": 0.94, "c": 0.93}
    bench.catalog.thumbnails = {"a": b"A", "c": b"C"}
    plain = await bench.search(page_size=2)
    assert bench.catalog.queries[-1].thumbnail_count == 0
    assert plain.thumbnails == {}

    shown = await bench.search(page_size=2, thumbnail_bytes=100)
    assert [match.thumbnail for match in shown.matches] == [b"A", b""]
    drawn = await bench.search(page_size=2, drawing=DrawingOptions(match_count=1))
    assert drawn.thumbnails == {"a": b"A"}
    assert [match.thumbnail for match in drawn.matches] == [b"", b""]
    assert bench.catalog.loaded_thumbnails == []


async def test_thumbnails_of_matches_in_regions_are_loaded_once_the_page_is_known() -> None:
    bench = Bench(FakeEmbedding(proposals={PART: b"part", WHOLE: b"nothing"}))
    bench.catalog.similarities[IN_PART] = {"pasted": 0.8}
    bench.catalog.thumbnails = {"pasted": b"P"}
    answer = await bench.search(thumbnail_bytes=100)
    assert [match.thumbnail for match in answer.matches] == [b"P"]
    assert [query.thumbnail_count for query in bench.catalog.queries] == [10, 0]
    assert bench.catalog.loaded_thumbnails == ["pasted"]


async def test_every_page_has_the_rank_of_its_first_match() -> None:
    bench = Bench()
    bench.catalog.similarities[SAME_CAT] = {f"{row}": 0.95 - 0.01 * row for row in range(5)}
    bench.catalog.images = {f"{row}": stored(f"{row}") for row in range(5)}
    page, ranks = await bench.search(page_size=2), []
    while page.next_page_token:
        ranks.append(page.first_rank)
        page = await bench.search(query=None, page_size=2, page_token=page.next_page_token)
    assert [*ranks, page.first_rank] == [1, 3, 5]
