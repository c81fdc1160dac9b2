"""The queue of calls: few at once, the others in order, too many are refused."""

from __future__ import annotations

import asyncio

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.call_queue import CallQueue
from imagesearch_services.embedding.slow_work import give_up_turn


def new_queue(in_progress: int, queued: int) -> CallQueue:
    return CallQueue("calls", in_progress=in_progress, queued=queued, retry_after_s=0.5)


class Calls:
    """Calls that end when the test says so."""

    def __init__(self, queue: CallQueue) -> None:
        self._queue = queue
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.running: list[str] = []

    async def start(self, name: str, pictures: int = 1) -> None:
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._run(name, pictures))
        await settled()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await settled()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.gather(self._tasks[name], return_exceptions=True)
        await settled()

    async def _run(self, name: str, pictures: int) -> None:
        async with self._queue.turn(pictures):
            self.running.append(name)
            try:
                await self._ends[name].wait()
            finally:
                self.running.remove(name)


async def settled() -> None:
    """Let each task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_calls_wait_in_order_and_too_many_are_refused() -> None:
    queue = new_queue(2, 2)
    calls = Calls(queue)
    for name in "abcd":
        await calls.start(name)
    assert calls.running == ["a", "b"]
    with pytest.raises(ServiceError) as caught:
        async with queue.turn():
            pytest.fail("was admitted")
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_s == 0.5
    await calls.end("a")
    assert calls.running == ["b", "c"]
    await calls.end("b")
    assert calls.running == ["c", "d"]
    await calls.end("c")
    await calls.end("d")


async def test_a_large_batch_gets_its_turn_although_small_ones_keep_coming() -> None:
    calls = Calls(new_queue(16, 64))
    await calls.start("small-1", 8)
    await calls.start("small-2", 8)
    await calls.start("large", 100)
    await calls.start("small-3", 1)
    await calls.end("small-1")
    assert calls.running == ["small-2"], "a later call does not overtake the batch"
    await calls.end("small-2")
    assert calls.running == ["large"]
    await calls.end("large")
    assert calls.running == ["small-3"]
    await calls.end("small-3")


async def test_a_call_whose_work_is_slow_gives_its_turn_to_the_next_one() -> None:
    queue = new_queue(1, 1)
    calls = Calls(queue)
    ended = asyncio.Event()

    async def slow() -> None:
        async with queue.turn():
            await asyncio.create_task(slowly_decode())
            await ended.wait()

    async def slowly_decode() -> None:
        give_up_turn()
        give_up_turn()

    task = asyncio.create_task(slow())
    await settled()
    await calls.start("next")
    assert calls.running == ["next"]
    ended.set()
    await task
    await calls.start("waiting")
    assert calls.running == ["next"], "the slow call gives only one turn back"
    await calls.end("next")
    await calls.end("waiting")


async def test_a_cancelled_call_leaves_the_queue() -> None:
    calls = Calls(new_queue(1, 1))
    await calls.start("a")
    await calls.start("b")
    await calls.cancel("b")
    await calls.start("c")
    await calls.end("a")
    assert calls.running == ["c"]
    await calls.cancel("c")
    await calls.start("d")
    assert calls.running == ["d"]
    await calls.end("d")
