"""Locks by key and shielded tasks."""

from __future__ import annotations

import asyncio

import pytest

from imagesearch_services.catalog.tasks import KeyedLocks, ShieldedTasks


async def test_keyed_locks_exclude_the_same_key_only_and_are_removed_after_use() -> None:
    locks = KeyedLocks()
    order: list[str] = []
    entered = asyncio.Event()

    async def second() -> None:
        entered.set()
        async with locks.hold("a"):
            order.append("second")

    async with locks.hold("a"):
        task = asyncio.create_task(second())
        await entered.wait()
        async with locks.hold("b"):
            order.append("other key")
        order.append("first")
    await task
    assert order == ["other key", "first", "second"]
    assert not locks._locks


async def test_a_shielded_task_outlives_its_caller() -> None:
    shielded = ShieldedTasks()
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await go_on.wait()
        done.set()

    caller = asyncio.create_task(shielded.run(work()))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go_on.set()
    await shielded.drain()
    assert done.is_set()
