"""Keyed locks and shielded tasks."""

from __future__ import annotations

import asyncio
import gc

import pytest

from imagesearch_services.catalog.tasks import KeyedLocks, ShieldedTasks


async def test_a_keyed_lock_blocks_only_its_key_and_is_removed_after_use() -> None:
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
    started, proceed, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        await proceed.wait()
        done.set()

    caller = asyncio.create_task(shielded.run(work()))
    await started.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    proceed.set()
    await shielded.drain()
    assert done.is_set()


async def test_the_error_of_a_task_without_a_caller_is_not_logged_as_unexpected() -> None:
    unexpected: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, event: unexpected.append(event))
    shielded = ShieldedTasks()
    started, proceed = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        await proceed.wait()
        raise ValueError

    caller = asyncio.create_task(shielded.run(work()))
    await started.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    proceed.set()
    await shielded.drain()
    await asyncio.sleep(0)
    gc.collect()
    assert unexpected == []
