"""Comparison of pairs by embeddings and by aligned thumbnails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from imagesearch_services.common.types import Box
from imagesearch_services.gateway.duplicates.model import ScanLimits
from tests.unit.gateway.duplicates.scripted import Bench, ScriptedCatalog, ScriptedEmbedding, group
from tests.unit.gateway.fakes import stored


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
    """A uid with a constant hash."""

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
async def test_narrow_thumbnails_and_those_of_more_than_the_region_are_not_aligned(
    changes: dict[str, Any],
) -> None:
    bench = Bench(ScriptedCatalog(thumbnails=True))
    bench.catalog.put("ab", **changes)
    bench.catalog.relate(("a", "b"))
    assert await bench.groups() == {group("a", "b")}
    assert not bench.embedding.checked


async def test_the_threshold_of_pairs_without_thumbnails_is_stricter() -> None:
    # With five images, the threshold is a similarity of 0.27 at a rate of 0.01 per search, and 0.20
    # at five times this rate.
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


async def test_min_score_replaces_the_default_rate() -> None:
    bench = Bench()
    bench.catalog.put("abc")
    bench.catalog.relate(("a", "b"), similarity=0.6)
    assert await bench.groups(min_score=0.5) == {group("a", "b")}
    assert await bench.groups(min_score=0.7) == set()
    assert await bench.groups(min_score=0.5, max_false_positive_rate=1e-9) == set()
