"""FindDuplicates: which images make a group, the order of groups, and how a call resumes."""

# ruff: noqa: ARG002  # the ports define the arguments

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
from imagesearch_services.gateway.duplicates.copy_check import CopyCheck
from imagesearch_services.gateway.duplicates.copy_classifier import CopyClassifier
from imagesearch_services.gateway.duplicates.finder import DuplicateFinder
from imagesearch_services.gateway.duplicates.model import (
    DuplicateImage,
    DuplicatesRequest,
    DuplicatesUpdate,
    KeepPolicy,
    ScanLimits,
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

COPY_SIMILARITY = 0.9
Groups = set[frozenset[str]]


@dataclass
class ScriptedCatalog(FakeCatalog):
    """A library with scripted similarities; uids are in the order of the names."""

    similarities: dict[tuple[str, str], float] = field(default_factory=dict)
    """Similarity of the second image when searched with the first; not the other way round."""
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

    def relate(self, *pairs: tuple[str, str], similarity: float = COPY_SIMILARITY) -> None:
        for a, b in pairs:
            self.similarities[a, b] = self.similarities[b, a] = similarity

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
        remaining = [self.images[name] for name in sorted(self.images) if name > page_token]
        page = remaining[:page_size]
        next_page_token = page[-1].image_id if len(remaining) > len(page) else ""
        return ImagePage(page, next_page_token, len(self.images))

    async def nearest(self, query: NearestQuery) -> Sequence[Sequence[Hit]]:
        self.calls.append("nearest")
        if query.library_uid != self.library.uid:
            raise ServiceError(Reason.LIBRARY_CHANGED, "recreated")
        results = []
        for vector in query.vectors:
            name = vector.values.decode()
            neighbors = [
                (-similarity, neighbor)
                for (image, neighbor), similarity in self.similarities.items()
                if image == name
                and neighbor in self.images
                and similarity >= (query.min_similarity or 0)
            ]
            neighbors.append((-1.0, name))
            hits = [Hit(self.images[other].uid, -key) for key, other in sorted(neighbors)]
            results.append(hits[: query.limit])
        return results

    async def rejected_pairs(
        self, library_id: str, image_ids: Sequence[str]
    ) -> Sequence[tuple[str, str]]:
        return [pair for pair in self.rejected if not set(pair).isdisjoint(image_ids)]

    async def get_thumbnails(
        self, library_id: str, image_ids: Sequence[str], *, library_uid: str = ""
    ) -> Sequence[bytes]:
        return [image_id.encode() for image_id in image_ids]


@dataclass
class ScriptedEmbedding(FakeEmbedding):
    """Aligns pairs of thumbnails as scripted; by default their pixels agree."""

    different: set[frozenset[str]] = field(default_factory=set)
    """Pairs whose pixels do not agree."""
    unreadable: str = ""
    """Image whose thumbnail is unreadable."""
    checked: list[frozenset[str]] = field(default_factory=list)

    async def check_copies(
        self, pictures: Sequence[bytes], pairs: Sequence[tuple[int, int]]
    ) -> Sequence[CopyEvidence | None]:
        names = [frozenset(pictures[row].decode() for row in pair) for pair in pairs]
        self.checked += names
        agreeing = CopyEvidence(
            agreement=0.98, contrast_share=0.5, shown_of_first=1, shown_of_second=1, inlier_count=90
        )
        evidence = {pair: CopyEvidence() for pair in self.different}
        evidence |= {pair: None for pair in names if self.unreadable in pair}
        return [evidence.get(pair, agreeing) for pair in names]


@dataclass
class Bench:
    """A finder on fakes."""

    catalog: ScriptedCatalog = field(default_factory=ScriptedCatalog)
    embedding: ScriptedEmbedding = field(default_factory=ScriptedEmbedding)
    limits: ScanLimits = field(default_factory=ScanLimits)

    def __post_init__(self) -> None:
        self.finder = DuplicateFinder(
            catalog=self.catalog,
            check=CopyCheck(
                catalog=self.catalog, embedding=self.embedding, classifier=CopyClassifier.load()
            ),
            libraries=LibraryCache(self.catalog),
            calibrations=CALIBRATIONS,
            tokens=DuplicateTokens(b"key"),
            admission=Admission(1, retry_after_s=0.5),
            default_max_false_positive_rate=0.01,
            min_library_size=1,
            limits=self.limits,
        )

    async def find(self, **changes: Any) -> list[DuplicatesUpdate]:
        return [update async for update in self.finder.find(request(**changes))]

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
        fingerprints={},
    )
    return replace(plain, **changes)


def image_ids(update: DuplicatesUpdate) -> list[str]:
    return [member.image.image_id for member in update.group]


def groups_of(updates: Iterable[DuplicatesUpdate]) -> Groups:
    groups = [frozenset(image_ids(update)) for update in updates if update.group]
    assert len(set(groups)) == len(groups)
    return set(groups)


def group(*names: str) -> frozenset[str]:
    return frozenset(names)


async def refusal(bench: Bench, **changes: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await bench.find(**changes)
    return caught.value


async def test_copies_are_grouped_and_other_images_are_not() -> None:
    bench = Bench()
    bench.catalog.put("abcdefg")
    bench.catalog.relate(("a", "f"), ("c", "d"), ("c", "g"), ("d", "g"))
    bench.catalog.relate(("b", "e"), similarity=0.1)
    assert await bench.groups() == {group("a", "f"), group("c", "d", "g")}


async def test_a_chain_of_copies_never_groups_images_that_are_no_copies() -> None:
    bench = Bench()
    bench.catalog.put("abc")
    bench.catalog.relate(("a", "b"), ("b", "c"))
    assert await bench.groups() == {group("a", "b")}


@pytest.mark.parametrize(
    ("policy", "kept"),
    [(KeepPolicy.LARGEST, "a"), (KeepPolicy.SHARPEST, "b"), (KeepPolicy.OLDEST, "c")],
)
async def test_the_keep_policy_selects_the_first_image_of_a_group(
    policy: KeepPolicy, kept: str
) -> None:
    bench = Bench()
    info = stored("a").info
    bench.catalog.put("abc")
    for name, changes in {
        "a": {"info": replace(info, width=999, sha256="1")},
        "b": {"info": replace(info, sharpness=9.0, sha256="2")},
        "c": {"create_time": NOW - timedelta(days=1)},
    }.items():
        bench.catalog.images[name] = replace(bench.catalog.images[name], **changes)
    bench.catalog.relate(*itertools.combinations("abc", 2))
    (update, _) = await bench.find(keep=policy)
    assert update.group[0].image.image_id == kept
    assert [member.score for member in update.group] == [1.0, COPY_SIMILARITY, COPY_SIMILARITY]


async def test_groups_are_sent_with_the_first_image_of_their_component() -> None:
    bench = Bench()
    # The component of "a" splits into two groups, with the one of "c" between them.
    bench.catalog.put("abcdefg")
    bench.catalog.relate(("a", "b"), ("b", "e"), ("e", "f"), ("c", "d"))
    messages = await bench.find()
    firsts = [min(member.image.image_id for member in update.group) for update in messages[:-1]]
    assert firsts == ["a", "e", "c"]


async def test_rejected_pairs_are_never_in_one_group() -> None:
    bench = Bench()
    bench.catalog.put("abcd")
    bench.catalog.relate(*itertools.combinations("abcd", 2))
    bench.catalog.rejected = {("b", "a"), ("c", "d")}
    assert await bench.groups() == {group("a", "c"), group("b", "d")}


async def test_a_similarity_that_only_one_of_two_searches_finds_counts() -> None:
    for query, neighbor in (("a", "b"), ("b", "a")):
        bench = Bench()
        bench.catalog.put("abc")
        bench.catalog.similarities[query, neighbor] = COPY_SIMILARITY
        assert await bench.groups() == {group("a", "b")}


async def test_late_members_are_sent_with_their_own_groups() -> None:
    bench = Bench(limits=ScanLimits(page_images=2))
    bench.catalog.put("abcdef")
    bench.catalog.relate(("e", "f"))
    # Searches with "a" and "b" did not find these.
    bench.catalog.similarities |= {("e", "a"): COPY_SIMILARITY, ("f", "b"): COPY_SIMILARITY}
    messages = await bench.find()
    assert groups_of(messages) == {group("a", "e"), group("b", "f")}


async def test_more_copies_than_the_neighbors_of_a_search_are_all_found() -> None:
    bench = Bench(limits=ScanLimits(page_images=3, first_neighbors=2, max_neighbors=4))
    names = [f"{number:02}" for number in range(30)]
    bench.catalog.put(names)
    bench.catalog.relate(*itertools.combinations(names, 2))
    groups = [image_ids(update) for update in await bench.find() if update.group]
    keepers = {keeper for keeper, *_ in groups}
    copies = [image_id for _, *others in groups for image_id in others]
    assert len(copies) == len(set(copies))
    assert set(copies) | keepers == set(names)


async def test_pairs_with_thumbnails_are_aligned() -> None:
    bench = Bench(ScriptedCatalog(thumbnails=True))
    bench.catalog.put("abcd")
    bench.catalog.relate(("a", "b"), ("a", "c"))
    bench.embedding.different = {group("a", "c")}
    (update, _) = await bench.find()
    assert [member.image.image_id for member in update.group] == ["a", "b"]
    assert [member.pixels_agree for member in update.group] == [False, True]
    assert set(bench.embedding.checked) == {group("a", "b"), group("a", "c")}


class CollidingUid(bytes):
    """A uid whose hash is the one of every other."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 0


async def test_pairs_whose_hashes_collide_are_all_compared() -> None:
    bench = Bench(ScriptedCatalog(thumbnails=True), limits=ScanLimits(page_images=2))
    bench.catalog.put("abcd")
    for name, image in bench.catalog.images.items():
        bench.catalog.images[name] = replace(image, uid=CollidingUid(image.uid))
    bench.catalog.relate(("a", "b"), ("c", "d"))
    bench.embedding.different = {group("a", "b")}
    assert await bench.groups() == {group("c", "d")}


async def test_identical_files_are_not_aligned() -> None:
    bench = Bench(ScriptedCatalog(thumbnails=True))
    bench.catalog.put("ab", info=replace(stored("a").info, sha256="same"))
    bench.catalog.relate(("a", "b"), similarity=1.0)
    assert await bench.groups() == {group("a", "b")}
    assert not bench.embedding.checked


@pytest.mark.parametrize(
    "changes",
    [
        {"info": replace(stored("a").info, width=4000, height=100, sha256=""), "region": None},
        {"region": Box(0, 0, 50, 80)},
    ],
    ids=["too narrow", "region embedded"],
)
async def test_thumbnails_that_are_narrow_or_show_more_than_the_region_are_not_aligned(
    changes: dict[str, Any],
) -> None:
    bench = Bench(ScriptedCatalog(thumbnails=True))
    bench.catalog.put("ab", **changes)
    bench.catalog.relate(("a", "b"))
    assert await bench.groups() == {group("a", "b")}
    assert not bench.embedding.checked


async def test_without_thumbnails_the_threshold_is_stricter() -> None:
    # With five images, a rate of 0.01 a search is a similarity of 0.27, five times the rate 0.20.
    for thumbnails, expected in ((True, {group("a", "b")}), (False, set())):
        bench = Bench(ScriptedCatalog(thumbnails=thumbnails))
        bench.catalog.put("abcde")
        bench.catalog.relate(("a", "b"), similarity=0.25)
        assert await bench.groups() == expected


async def test_an_unreadable_thumbnail_counts_as_missing() -> None:
    bench = Bench(ScriptedCatalog(thumbnails=True), ScriptedEmbedding(unreadable="b"))
    bench.catalog.put("abcd")
    bench.catalog.relate(("a", "b"), ("c", "d"))
    bench.embedding.different = {group("c", "d")}
    assert await bench.groups() == {group("a", "b")}


async def test_a_call_over_the_concurrency_limit_is_refused_with_a_retry_delay() -> None:
    bench = Bench()
    bench.catalog.put("ab")
    bench.catalog.relate(("a", "b"))
    async with aclosing(bench.finder.find(request())) as first:
        await anext(first)
        error = await refusal(bench)
        assert error.reason is Reason.OVERLOADED
        assert error.retry_after_s == 0.5
    assert await bench.groups() == {group("a", "b")}


async def test_min_score_replaces_the_default_rate() -> None:
    bench = Bench()
    bench.catalog.put("abc")
    bench.catalog.relate(("a", "b"), similarity=0.6)
    assert await bench.groups(min_score=0.5) == {group("a", "b")}
    assert await bench.groups(min_score=0.7) == set()
    assert await bench.groups(min_score=0.5, max_false_positive_rate=1e-9) == set()


async def test_images_deleted_during_the_scan_are_left_out() -> None:
    bench = Bench()
    bench.catalog.put("abcdef")
    bench.catalog.relate(("a", "b"), ("c", "d"), ("c", "e"))
    messages = []
    async with aclosing(bench.finder.find(request())) as found:
        async for update in found:
            messages.append(update)
            bench.catalog.images.pop("d", None)
    assert groups_of(messages) == {group("a", "b"), group("c", "e")}


async def test_a_call_resumes_after_any_update() -> None:
    chance = random.Random(5)  # noqa: S311  # no secrets
    names = [f"{number:02}" for number in range(40)]
    bench = Bench(limits=ScanLimits(page_images=7))
    bench.catalog.put(names)
    for _ in range(45):
        a, b = chance.sample(names, 2)
        bench.catalog.relate((a, b), similarity=chance.uniform(0.5, 0.95))
    whole = await bench.find()
    expected = [image_ids(update) for update in whole if update.group]
    assert len(expected) > 5
    for stop in range(1, len(whole)):
        received = whole[:stop]
        rest = await bench.find(page_token=received[-1].next_page_token)
        resumed = [image_ids(update) for update in [*received, *rest] if update.group]
        assert resumed == expected
        assert rest[-1].checked_count == whole[-1].checked_count


async def test_progress_is_reported_and_the_last_update_has_no_token() -> None:
    bench = Bench(limits=ScanLimits(page_images=2))
    bench.catalog.put("abcde")
    messages = await bench.find()
    assert [update.checked_count for update in messages] == [2, 4, 5]
    assert [bool(update.next_page_token) for update in messages] == [True, True, False]
    assert {update.total_count for update in messages} == {5}


async def test_an_empty_library_has_no_duplicates() -> None:
    (update,) = await Bench(ScriptedCatalog(library=library(image_count=0))).find()
    assert (update.group, update.checked_count, update.next_page_token) == ((), 0, "")


async def test_the_scan_does_not_run_ahead_of_a_slow_reader() -> None:
    bench = Bench(limits=ScanLimits(page_images=2))
    bench.catalog.put([f"{number:02}" for number in range(20)])
    async with aclosing(bench.finder.find(request())) as found:
        await anext(found)
        assert bench.catalog.calls == ["list", "nearest"]
        await anext(found)
        assert bench.catalog.calls == ["list", "nearest"] * 2
    assert bench.catalog.calls == ["list", "nearest"] * 2


async def test_cancellation_cancels_the_pending_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(ScriptedCatalog(thumbnails=True))
    bench.catalog.put("abcd")
    bench.catalog.relate(("a", "b"), ("c", "d"))
    started, ended = asyncio.Event(), []

    async def check_copies(*_: object) -> Sequence[CopyEvidence]:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")
        return []

    monkeypatch.setattr(bench.embedding, "check_copies", check_copies)
    call = asyncio.create_task(bench.find())
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended == ["cancelled"]
    assert len(asyncio.all_tasks()) == 1


async def test_each_image_is_searched_with_once(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[bytes] = []
    bench = Bench()
    names = [f"{number:03}" for number in range(250)]
    bench.catalog.put(names)
    bench.catalog.relate(*zip(names[::10], names[5::10], strict=True))
    search = bench.catalog.nearest

    async def nearest(query: NearestQuery) -> Sequence[Sequence[Hit]]:
        searched.extend(vector.values for vector in query.vectors)
        assert len(query.vectors) <= 100
        return await search(query)

    monkeypatch.setattr(bench.catalog, "nearest", nearest)
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
    ids=["too short", "not base64", "unsigned", "search token"],
)  # fmt: skip
async def test_foreign_tokens_are_refused(token: str) -> None:
    bench = Bench()
    bench.catalog.put("a")
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
    ids=["infinity", "no comparisons", "negative count", "count over int32", "deep nesting"],
)
async def test_malformed_tokens_signed_with_the_default_key_are_refused(body: bytes) -> None:
    version = b"\x80"
    mac = hmac.digest(b"", version + body, "sha256")[:16]
    token = base64.urlsafe_b64encode(version + mac + body).decode().rstrip("=")
    with pytest.raises(ServiceError) as caught:
        DuplicateTokens(b"").decode(token)
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


async def test_a_token_is_bound_to_its_library_and_request() -> None:
    bench = Bench(limits=ScanLimits(page_images=1))
    bench.catalog.put("ab")
    fingerprints = {"keep": "1", "filter": "2"}
    first, *_ = await bench.find(fingerprints=fingerprints)
    error = await refusal(
        bench, fingerprints={**fingerprints, "keep": "3"}, page_token=first.next_page_token
    )
    assert error.reason is Reason.PAGE_TOKEN_INVALID
    assert "keep" in error.message
    bench.catalog.library = replace(bench.catalog.library, uid="2" * 32)
    error = await refusal(bench, fingerprints=fingerprints, page_token=first.next_page_token)
    assert error.reason is Reason.PAGE_TOKEN_INVALID


async def test_a_library_recreated_during_the_scan_ends_the_call() -> None:
    bench = Bench(limits=ScanLimits(page_images=1))
    bench.catalog.put("ab")
    found = bench.finder.find(request())
    await anext(found)
    bench.catalog.library = replace(bench.catalog.library, uid="2" * 32)
    with pytest.raises(ServiceError) as caught:
        await anext(found)
    assert caught.value.reason is Reason.LIBRARY_CHANGED


async def test_only_whole_image_libraries_have_duplicates() -> None:
    bench = Bench(ScriptedCatalog(library=library(type=LibraryType.PRODUCT)))
    assert (await refusal(bench)).reason is Reason.LIBRARY_TYPE_MISMATCH


def test_a_group_over_the_message_limit_is_split() -> None:
    members = [DuplicateImage(large_image(f"i{number}"), 1.0, True) for number in range(2000)]
    update = DuplicatesUpdate(members, 5, 10, "after", "before")
    messages = list(write_duplicates(update))
    assert len(messages) > 1
    assert all(message.ByteSize() < 4 * 1024 * 1024 for message in messages)
    assert {message.group.images[0].image.image_id for message in messages} == {"i0"}
    copies = [member.image.image_id for message in messages for member in message.group.images[1:]]
    assert copies == [f"i{number}" for number in range(1, 2000)]
    assert [message.next_page_token for message in messages] == [
        *["before"] * (len(messages) - 1),
        "after",
    ]


def large_image(image_id: str) -> StoredImage:
    plain = stored(image_id)
    return replace(plain, fields=replace(plain.fields, custom_content="x" * 4096))
