"""The members of groups, and the order in which groups are sent."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from imagesearch_services.gateway.duplicates.model import (
    KeepPolicy,
    ScanLimits,
)
from tests.unit.gateway.duplicates.scripted import (
    COPY_SIMILARITY,
    Bench,
    group,
    groups_of,
    image_ids,
)
from tests.unit.gateway.fakes import (
    NOW,
    stored,
)


async def test_copies_are_grouped_and_other_images_are_not() -> None:
    bench = Bench()
    bench.catalog.put("abcdefg")
    bench.catalog.relate(("a", "f"), ("c", "d"), ("c", "g"), ("d", "g"))
    bench.catalog.relate(("b", "e"), similarity=0.1)
    assert await bench.groups() == {group("a", "f"), group("c", "d", "g")}


async def test_the_ends_of_a_chain_of_copies_are_not_grouped_unless_they_are_copies() -> None:
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
    # The component of "a" splits into two groups. The uids of component "c" are between theirs.
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


async def test_a_pair_that_only_one_of_two_searches_finds_is_grouped() -> None:
    for query, neighbor in (("a", "b"), ("b", "a")):
        bench = Bench()
        bench.catalog.put("abc")
        bench.catalog.similarities[query, neighbor] = COPY_SIMILARITY
        assert await bench.groups() == {group("a", "b")}


async def test_late_members_are_sent_with_their_own_groups() -> None:
    bench = Bench(limits=ScanLimits(page_images=2))
    bench.catalog.put("abcdef")
    bench.catalog.relate(("e", "f"))
    # The searches with "a" and "b" did not find "e" and "f".
    bench.catalog.similarities |= {("e", "a"): COPY_SIMILARITY, ("f", "b"): COPY_SIMILARITY}
    messages = await bench.find()
    assert groups_of(messages) == {group("a", "e"), group("b", "f")}


async def test_all_copies_are_found_if_there_are_more_than_neighbors_in_a_search() -> None:
    bench = Bench(limits=ScanLimits(page_images=3, first_neighbors=2, max_neighbors=4))
    names = [f"{number:02}" for number in range(30)]
    bench.catalog.put(names)
    bench.catalog.relate(*itertools.combinations(names, 2))
    groups = [image_ids(update) for update in await bench.find() if update.group]
    keepers = {keeper for keeper, *_ in groups}
    copies = [image_id for _, *others in groups for image_id in others]
    assert len(copies) == len(set(copies))
    assert set(copies) | keepers == set(names)
