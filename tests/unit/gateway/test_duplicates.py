"""Which images make a group, in which order groups come, and how a call is taken up again."""

# ruff: noqa: ARG002  # arguments are those of the ports

from __future__ import annotations

import asyncio
import base64
import hmac
import itertools
import random
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Box, LibraryType, Vector
from imagesearch_services.gateway.admission import Admission
from imagesearch_services.gateway.contract.duplicates import write_duplicates
from imagesearch_services.gateway.duplicates import scan as module
from imagesearch_services.gateway.duplicates.copy_check import CopyCheck
from imagesearch_services.gateway.duplicates.finder import Duplicates
from imagesearch_services.gateway.duplicates.graph import KeepPolicy
from imagesearch_services.gateway.duplicates.scan import (
    DuplicateImage,
    DuplicatesNews,
    DuplicatesRequest,
)
from imagesearch_services.gateway.duplicates.tokens import DuplicateTokens
from imagesearch_services.gateway.filters import Filter
from imagesearch_services.gateway.library.cache import LibraryCache
from imagesearch_services.gateway.model import Hit, StoredImage
from imagesearch_services.gateway.ports import CopyEvidence, ImagePage, NearestQuery
from imagesearch_services.gateway.search.page_tokens import PageTokens, PinnedRanking
from tests.unit.gateway.fakes import (
    CALIBRATIONS,
    COPY,
    NOW,
    FakeCatalog,
    FakeEmbedding,
    library,
    stored,
)

ALIKE = 0.9
Groups = set[frozenset[str]]


@dataclass
class Shelf(FakeCatalog):
    """A library whose likenesses a test writes down; uids are in the order of the names."""

    likenesses: dict[tuple[str, str], float] = field(default_factory=dict)
    """What a search with the first finds of the second; only that way round."""
    rejected: set[tuple[str, str]] = field(default_factory=set)
    thumbnails: bool = False
    calls: list[str] = field(default_factory=list)

    def put(self, names: Iterable[str], **changes: Any) -> None:
        for name in names:
            plain = replace(
                stored(name),
                vectors=(Vector(COPY.space, name.encode()),),
                has_thumbnail=self.thumbnails,
                info=replace(stored(name).info, sha256=name),
            )
            self.images[name] = replace(plain, **changes)
        self.library = replace(self.library, image_count=len(self.images))

    def like(self, *pairs: tuple[str, str], similarity: float = ALIKE) -> None:
        for a, b in pairs:
            self.likenesses[a, b] = self.likenesses[b, a] = similarity

    async def list_images(
        self,
        library_id: str,
        images: Filter | None,
        page_size: int,
        page_token: str,
        *,
        include_vectors: bool = False,
    ) -> ImagePage:
        self.calls.append("list")
        left = [self.images[name] for name in sorted(self.images) if name > page_token]
        page = left[:page_size]
        more = page[-1].image_id if len(left) > len(page) else ""
        return ImagePage(page, more, len(self.images))

    async def nearest(self, query: NearestQuery) -> Sequence[Sequence[Hit]]:
        self.calls.append("nearest")
        if query.library_uid != self.library.uid:
            raise ServiceError(Reason.LIBRARY_CHANGED, "made anew")
        lists = []
        for vector in query.vectors:
            name = vector.values.decode()
            near = [
                (similarity, other)
                for (one, other), similarity in self.likenesses.items()
                if one == name
                and other in self.images
                and similarity >= (query.min_similarity or 0)
            ]
            near.append((1.0, name))
            near.sort(key=lambda each: (-each[0], each[1]))
            hits = [Hit(self.images[other].uid, similarity) for similarity, other in near]
            lists.append(hits[: query.limit])
        return lists

    async def rejected_pairs(
        self, library_id: str, image_ids: Sequence[str]
    ) -> Sequence[tuple[str, str]]:
        return [pair for pair in self.rejected if not set(pair).isdisjoint(image_ids)]

    async def get_thumbnails(
        self, library_id: str, image_ids: Sequence[str], *, library_uid: str = ""
    ) -> Sequence[bytes]:
        return [image_id.encode() for image_id in image_ids]


@dataclass
class Checker(FakeEmbedding):
    """Says of each pair what a test wrote down: by default that they agree."""

    different: set[frozenset[str]] = field(default_factory=set)
    unreadable: str = ""
    checked: list[frozenset[str]] = field(default_factory=list)

    async def check_copies(
        self, pictures: Sequence[bytes], pairs: Sequence[tuple[int, int]]
    ) -> Sequence[CopyEvidence | None]:
        names = [frozenset(pictures[row].decode() for row in pair) for pair in pairs]
        self.checked += names
        agreeing = CopyEvidence(
            agreement=0.98, contrast_share=0.5, shown_of_first=1, shown_of_second=1, inlier_count=90
        )
        found = {pair: CopyEvidence() for pair in self.different}
        found |= {pair: None for pair in names if self.unreadable in pair}
        return [found.get(pair, agreeing) for pair in names]


@dataclass
class Bench:
    """The search for repeats on fakes."""

    shelf: Shelf = field(default_factory=Shelf)
    checker: Checker = field(default_factory=Checker)

    def __post_init__(self) -> None:
        self.duplicates = Duplicates(
            catalog=self.shelf,
            check=CopyCheck(self.shelf, self.checker),
            libraries=LibraryCache(self.shelf),
            calibrations=CALIBRATIONS,
            tokens=DuplicateTokens(b"key"),
            admission=Admission(1, retry_after_s=0.5),
            default_max_false_positive_rate=0.01,
            min_library_size=1,
        )

    async def find(self, **changes: Any) -> list[DuplicatesNews]:
        return [news async for news in self.duplicates.find(request(**changes))]

    async def groups(self, **changes: Any) -> Groups:
        return groups_of(await self.find(**changes))


def request(**changes: Any) -> DuplicatesRequest:
    plain = DuplicatesRequest(
        library_id="shop",
        filter=None,
        min_score=None,
        max_false_positive_rate=None,
        keep=KeepPolicy.LARGEST,
        page_token="",
        said={},
    )
    return replace(plain, **changes)


def groups_of(messages: Iterable[DuplicatesNews]) -> Groups:
    found = [
        frozenset(member.image.image_id for member in news.group) for news in messages if news.group
    ]
    assert len(set(found)) == len(found)
    return set(found)


def group(*names: str) -> frozenset[str]:
    return frozenset(names)


async def refusal(bench: Bench, **changes: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await bench.find(**changes)
    return caught.value


async def test_repeats_are_grouped_and_the_rest_is_left_out() -> None:
    bench = Bench()
    bench.shelf.put("abcdefg")
    bench.shelf.like(("a", "f"), ("c", "d"), ("c", "g"), ("d", "g"))
    bench.shelf.like(("b", "e"), similarity=0.1)
    assert await bench.groups() == {group("a", "f"), group("c", "d", "g")}


async def test_a_chain_never_joins_strangers() -> None:
    bench = Bench()
    bench.shelf.put("abc")
    bench.shelf.like(("a", "b"), ("b", "c"))
    assert await bench.groups() == {group("a", "b")}


@pytest.mark.parametrize(
    ("policy", "kept"),
    [(KeepPolicy.LARGEST, "a"), (KeepPolicy.SHARPEST, "b"), (KeepPolicy.OLDEST, "c")],
)
async def test_the_policy_says_which_image_leads(policy: KeepPolicy, kept: str) -> None:
    bench = Bench()
    info = stored("a").info
    bench.shelf.put("abc")
    for name, changes in {
        "a": {"info": replace(info, width=999, sha256="1")},
        "b": {"info": replace(info, sharpness=9.0, sha256="2")},
        "c": {"create_time": NOW - timedelta(days=1)},
    }.items():
        bench.shelf.images[name] = replace(bench.shelf.images[name], **changes)
    bench.shelf.like(*itertools.combinations("abc", 2))
    (news, _) = await bench.find(keep=policy)
    assert news.group[0].image.image_id == kept
    assert [member.score for member in news.group] == [1.0, ALIKE, ALIKE]


async def test_groups_come_when_the_first_of_what_hangs_together_is_looked_at() -> None:
    bench = Bench()
    # The part of "a" splits into two groups, and the one of "d" lies between them.
    bench.shelf.put("abcdefg")
    bench.shelf.like(("a", "b"), ("b", "e"), ("e", "f"), ("c", "d"))
    messages = await bench.find()
    firsts = [min(member.image.image_id for member in news.group) for news in messages[:-1]]
    assert firsts == ["a", "e", "c"]


async def test_rejected_pairs_are_never_in_one_group() -> None:
    bench = Bench()
    bench.shelf.put("abcd")
    bench.shelf.like(*itertools.combinations("abcd", 2))
    bench.shelf.rejected = {("b", "a"), ("c", "d")}
    assert await bench.groups() == {group("a", "c"), group("b", "d")}


async def test_likenesses_that_only_one_of_two_finds_count() -> None:
    for finder, found in (("a", "b"), ("b", "a")):
        bench = Bench()
        bench.shelf.put("abc")
        bench.shelf.likenesses[finder, found] = ALIKE
        assert await bench.groups() == {group("a", "b")}


async def test_groups_that_are_found_late_come_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAGE_IMAGES", 2)
    bench = Bench()
    bench.shelf.put("abcdef")
    bench.shelf.like(("e", "f"))
    # The index did not let the first ones find these.
    bench.shelf.likenesses |= {("e", "a"): ALIKE, ("f", "b"): ALIKE}
    messages = await bench.find()
    assert groups_of(messages) == {group("a", "e"), group("b", "f")}


async def test_more_copies_than_one_search_gives_are_all_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FIRST_NEIGHBOURS", 2)
    monkeypatch.setattr(module, "MAX_NEIGHBOURS", 4)
    monkeypatch.setattr(module, "PAGE_IMAGES", 3)
    bench = Bench()
    names = [f"{number:02}" for number in range(30)]
    bench.shelf.put(names)
    bench.shelf.like(*itertools.combinations(names, 2))
    found = [news.group for news in await bench.find() if news.group]
    members = [member.image.image_id for each in found for member in each[1:]]
    kept = {each[0].image.image_id for each in found}
    assert len(members) == len(set(members))
    assert set(members) | kept == set(names)


async def test_what_can_be_checked_is_checked() -> None:
    bench = Bench(Shelf(thumbnails=True))
    bench.shelf.put("abcd")
    bench.shelf.like(("a", "b"), ("a", "c"))
    bench.checker.different = {group("a", "c")}
    (news, _) = await bench.find()
    assert [member.image.image_id for member in news.group] == ["a", "b"]
    assert [member.pixels_agree for member in news.group] == [False, True]
    assert set(bench.checker.checked) == {group("a", "b"), group("a", "c")}


async def test_the_same_file_needs_no_check() -> None:
    bench = Bench(Shelf(thumbnails=True))
    bench.shelf.put("ab", info=replace(stored("a").info, sha256="same"))
    bench.shelf.like(("a", "b"), similarity=1.0)
    assert await bench.groups() == {group("a", "b")}
    assert not bench.checker.checked


@pytest.mark.parametrize(
    "changes",
    [
        {"info": replace(stored("a").info, width=4000, height=100, sha256=""), "region": None},
        {"region": Box(0, 0, 50, 80)},
    ],
    ids=["too narrow", "only a part is searched"],
)
async def test_small_pictures_that_do_not_show_enough_are_not_checked(
    changes: dict[str, Any],
) -> None:
    bench = Bench(Shelf(thumbnails=True))
    bench.shelf.put("ab", **changes)
    bench.shelf.like(("a", "b"))
    assert await bench.groups() == {group("a", "b")}
    assert not bench.checker.checked


async def test_without_small_pictures_only_the_sure_ones_are_given() -> None:
    # With five images, 0.01 wrong in an image's search is 0.27; five times that is 0.20.
    for thumbnails, expected in ((True, {group("a", "b")}), (False, set())):
        bench = Bench(Shelf(thumbnails=thumbnails))
        bench.shelf.put("abcde")
        bench.shelf.like(("a", "b"), similarity=0.25)
        assert await bench.groups() == expected


async def test_a_small_picture_that_can_not_be_read_counts_as_missing() -> None:
    bench = Bench(Shelf(thumbnails=True), Checker(unreadable="b"))
    bench.shelf.put("abcd")
    bench.shelf.like(("a", "b"), ("c", "d"))
    bench.checker.different = {group("c", "d")}
    assert await bench.groups() == {group("a", "b")}


async def test_more_calls_than_are_worked_on_at_once_are_told_to_retry() -> None:
    bench = Bench()
    bench.shelf.put("ab")
    bench.shelf.like(("a", "b"))
    async with aclosing(bench.duplicates.find(request())) as first:
        await anext(first)
        error = await refusal(bench)
        assert error.reason is Reason.OVERLOADED
        assert error.retry_after_s == 0.5
    assert await bench.groups() == {group("a", "b")}


async def test_a_score_may_be_asked_for_instead_of_a_rate() -> None:
    bench = Bench()
    bench.shelf.put("abc")
    bench.shelf.like(("a", "b"), similarity=0.6)
    assert await bench.groups(min_score=0.5) == {group("a", "b")}
    assert await bench.groups(min_score=0.7) == set()
    assert await bench.groups(min_score=0.5, max_false_positive_rate=1e-9) == set()


async def test_images_that_go_meanwhile_are_left_out() -> None:
    bench = Bench()
    bench.shelf.put("abcdef")
    bench.shelf.like(("a", "b"), ("c", "d"), ("c", "e"))
    messages = []
    async with aclosing(bench.duplicates.find(request())) as found:
        async for news in found:
            messages.append(news)
            bench.shelf.images.pop("d", None)
    assert groups_of(messages) == {group("a", "b"), group("c", "e")}


async def test_a_call_is_taken_up_after_any_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_IMAGES", 7)
    chance = random.Random(5)  # noqa: S311  # pictures, no secrets
    names = [f"{number:02}" for number in range(40)]
    bench = Bench()
    bench.shelf.put(names)
    for _ in range(45):
        a, b = chance.sample(names, 2)
        bench.shelf.like((a, b), similarity=chance.uniform(0.5, 0.95))
    whole = await bench.find()
    expected = [[member.image.image_id for member in news.group] for news in whole if news.group]
    assert len(expected) > 5
    for stop in range(1, len(whole)):
        received = whole[:stop]
        rest = await bench.find(page_token=received[-1].next_page_token)
        again = [
            [member.image.image_id for member in news.group]
            for news in [*received, *rest]
            if news.group
        ]
        assert again == expected
        assert rest[-1].checked_count == whole[-1].checked_count


async def test_progress_is_told_and_the_last_message_has_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAGE_IMAGES", 2)
    bench = Bench()
    bench.shelf.put("abcde")
    messages = await bench.find()
    assert [news.checked_count for news in messages] == [2, 4, 5]
    assert [bool(news.next_page_token) for news in messages] == [True, True, False]
    assert {news.total_count for news in messages} == {5}


async def test_an_empty_library_has_no_repeats() -> None:
    (news,) = await Bench(Shelf(library=library(image_count=0))).find()
    assert (news.group, news.checked_count, news.next_page_token) == ((), 0, "")


async def test_nothing_is_done_ahead_of_a_slow_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_IMAGES", 2)
    bench = Bench()
    bench.shelf.put([f"{number:02}" for number in range(20)])
    async with aclosing(bench.duplicates.find(request())) as found:
        await anext(found)
        assert bench.shelf.calls == ["list", "nearest"]
        await anext(found)
        assert bench.shelf.calls == ["list", "nearest"] * 2
    assert bench.shelf.calls == ["list", "nearest"] * 2


async def test_a_caller_who_goes_away_ends_what_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(Shelf(thumbnails=True))
    bench.shelf.put("abcd")
    bench.shelf.like(("a", "b"), ("c", "d"))
    begun, ended = asyncio.Event(), []

    async def check_copies(*_: object) -> Sequence[CopyEvidence]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")
        return []

    monkeypatch.setattr(bench.checker, "check_copies", check_copies)
    call = asyncio.create_task(bench.find())
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended == ["cancelled"]
    assert len(asyncio.all_tasks()) == 1


async def test_one_search_is_made_for_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[bytes] = []
    bench = Bench()
    names = [f"{number:03}" for number in range(250)]
    bench.shelf.put(names)
    bench.shelf.like(*zip(names[::10], names[5::10], strict=True))
    plain = bench.shelf.nearest

    async def nearest(query: NearestQuery) -> Sequence[Sequence[Hit]]:
        searched.extend(vector.values for vector in query.vectors)
        assert len(query.vectors) <= 100
        return await plain(query)

    monkeypatch.setattr(bench.shelf, "nearest", nearest)
    assert len(await bench.groups()) == 25
    assert len(searched) == len(set(searched)) == len(names)


@pytest.mark.parametrize(
    "token", ["x", "not base64!", "A" * 200, PageTokens(b"key", lambda: 0).encode(
        PinnedRanking(
            library_id="shop", library_uid="1" * 32, request={}, total_found=0,
            total_is_lower_bound=False, searched_region=None, query_info=None, thresholds=[],
            regions=[], matches=[],
        )
    )],
    ids=["short", "no base64", "unsigned", "of a search"],
)  # fmt: skip
async def test_foreign_tokens_are_refused(token: str) -> None:
    bench = Bench()
    bench.shelf.put("a")
    assert (await refusal(bench, page_token=token)).reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize(
    "body",
    [
        b'["u",{},Infinity,"","",0,"",0]',
        b'["u",{},0,"","",0,"",0]',
        b'["u",{},1,"","",-1,"",0]',
        b'["u",{},1,"","",4294967296,"",0]',
        b"[" * 30_000,
    ],
    ids=["infinite", "nothing to compare", "negative", "beyond int32", "deep"],
)
async def test_what_a_stranger_signed_with_the_default_key_is_refused(body: bytes) -> None:
    version = b"\x80"
    mac = hmac.digest(b"", version + body, "sha256")[:16]
    token = base64.urlsafe_b64encode(version + mac + body).decode().rstrip("=")
    with pytest.raises(ServiceError) as caught:
        DuplicateTokens(b"").decode(token)
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


async def test_a_token_belongs_to_its_library_and_its_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAGE_IMAGES", 1)
    bench = Bench()
    bench.shelf.put("ab")
    said = {"keep": "1", "filter": "2"}
    first, *_ = await bench.find(said=said)
    error = await refusal(bench, said={**said, "keep": "3"}, page_token=first.next_page_token)
    assert error.reason is Reason.PAGE_TOKEN_INVALID
    assert "keep" in error.message
    bench.shelf.library = replace(bench.shelf.library, uid="2" * 32)
    error = await refusal(bench, said=said, page_token=first.next_page_token)
    assert error.reason is Reason.PAGE_TOKEN_INVALID


async def test_a_library_that_is_made_anew_meanwhile_ends_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAGE_IMAGES", 1)
    bench = Bench()
    bench.shelf.put("ab")
    found = bench.duplicates.find(request())
    await anext(found)
    bench.shelf.library = replace(bench.shelf.library, uid="2" * 32)
    with pytest.raises(ServiceError) as caught:
        await anext(found)
    assert caught.value.reason is Reason.LIBRARY_CHANGED


async def test_only_whole_image_libraries_have_repeats() -> None:
    bench = Bench(Shelf(library=library(type=LibraryType.PRODUCT)))
    assert (await refusal(bench)).reason is Reason.LIBRARY_TYPE_MISMATCH


def test_a_group_that_is_too_large_for_a_message_comes_in_several() -> None:
    members = [DuplicateImage(large_image(f"i{number}"), 1.0, True) for number in range(2000)]
    news = DuplicatesNews(members, 5, 10, "after", "before")
    messages = list(write_duplicates(news))
    assert len(messages) > 1
    assert all(message.ByteSize() < 4 * 1024 * 1024 for message in messages)
    assert {message.group.images[0].image.image_id for message in messages} == {"i0"}
    shown = [member.image.image_id for each in messages for member in each.group.images[1:]]
    assert shown == [f"i{number}" for number in range(1, 2000)]
    assert [message.next_page_token for message in messages] == [
        *["before"] * (len(messages) - 1),
        "after",
    ]


def large_image(image_id: str) -> StoredImage:
    plain = stored(image_id)
    return replace(plain, fields=replace(plain.fields, custom_content="x" * 4096))
