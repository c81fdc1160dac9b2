"""Concurrent coroutines."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from imagesearch_services.common.concurrency import both, in_order


async def test_both_cancels_the_other_coroutine_when_one_fails() -> None:
    ended = asyncio.Event()

    async def wait_forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail() -> None:
        raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        await both(wait_forever(), fail())
    assert ended.is_set()


async def test_in_order_bounds_running_work_and_keeps_the_order() -> None:
    running = 0
    max_running = 0
    turn = [asyncio.Event() for _ in range(6)]
    turn[1].set()

    async def work(item: int) -> int:
        nonlocal running, max_running
        running += 1
        max_running = max(max_running, running)
        # An even item waits for the next item, so that pairs finish in reverse order.
        if item % 2 == 0:
            await turn[item + 1].wait()
        turn[item].set()
        running -= 1
        return item

    async with aclosing(in_order(work, range(6), ahead=2)) as results:
        assert [result async for result in results] == list(range(6))
    assert max_running == 2


async def test_in_order_cancels_running_work_when_closed() -> None:
    cancelled = asyncio.Event()

    async def work(item: int) -> int:
        if item == 0:
            return item
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return item

    async with aclosing(in_order(work, range(3), ahead=2)) as results:
        async for _ in results:
            # Let the second item start, so that there is work to cancel.
            await asyncio.sleep(0)
            break
    assert cancelled.is_set()
