"""Results, exceptions and cancellation of tasks in the pool of threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from imagesearch_services.embedding.workers import Workers


async def test_a_task_returns_its_result_or_raises_its_exception() -> None:
    workers = Workers(1, "test")
    assert await workers.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await workers.run(divmod, 7, 0)
    workers.close()


async def test_cancellation_takes_effect_after_the_running_task_has_ended() -> None:
    workers = Workers(1, "test")
    started, may_end = threading.Event(), threading.Event()

    def function() -> None:
        started.set()
        may_end.wait(10)

    task = asyncio.create_task(workers.run(function))
    await asyncio.to_thread(started.wait, 10)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    workers.close()


async def test_a_cancelled_task_that_waits_for_a_thread_never_runs() -> None:
    workers = Workers(1, "test")
    started, may_end, ran = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        started.set()
        may_end.wait(10)

    busy = asyncio.create_task(workers.run(first))
    await asyncio.to_thread(started.wait, 10)
    waiting = asyncio.create_task(workers.run(ran.set))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    may_end.set()
    await busy
    workers.close()
    assert not ran.is_set()
