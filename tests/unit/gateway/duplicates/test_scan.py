"""Progress, resumption, cancellation and errors of a scan."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import LibraryType
from imagesearch_services.gateway.duplicates.model import ScanLimits
from imagesearch_services.gateway.model import Hit
from imagesearch_services.gateway.ports import CopyEvidence, NearestQuery
from tests.unit.gateway.duplicates.scripted import (
    Bench,
    ScriptedCatalog,
    group,
    groups_of,
    image_ids,
    refusal,
    request,
)
from tests.unit.gateway.fakes import library


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


async def test_images_deleted_during_the_scan_are_omitted() -> None:
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
    generator = random.Random(5)  # noqa: S311  # not for secrets
    names = [f"{number:02}" for number in range(40)]
    bench = Bench(limits=ScanLimits(page_images=7))
    bench.catalog.put(names)
    for _ in range(45):
        a, b = generator.sample(names, 2)
        bench.catalog.relate((a, b), similarity=generator.uniform(0.5, 0.95))
    updates = await bench.find()
    expected = [image_ids(update) for update in updates if update.group]
    assert len(expected) > 5
    for stop in range(1, len(updates)):
        received = updates[:stop]
        resumed = await bench.find(page_token=received[-1].next_page_token)
        groups = [image_ids(update) for update in [*received, *resumed] if update.group]
        assert groups == expected
        assert resumed[-1].checked_count == updates[-1].checked_count


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


async def test_the_call_fails_if_the_library_is_recreated_during_the_scan() -> None:
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
