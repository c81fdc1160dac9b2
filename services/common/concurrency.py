"""Concurrent coroutines with cancellation and plain errors."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, TypeVar

from imagesearch_services.common.errors import ServiceError

A = TypeVar("A")
B = TypeVar("B")


async def both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Run two coroutines concurrently. If one fails, cancel the other and raise the error.

    `asyncio.gather` would leave the other coroutine running; a task group would wrap the error.
    """
    tasks = (asyncio.create_task(first), asyncio.create_task(second))
    await _all_done(tasks)
    return tasks[0].result(), tasks[1].result()


async def together(coroutines: Iterable[Coroutine[Any, Any, A]]) -> list[A]:
    """Run coroutines concurrently and return their results in order. Errors are as in `both`."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    await _all_done(tasks)
    return [task.result() for task in tasks]


async def _all_done(tasks: Iterable[asyncio.Task[Any]]) -> None:
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        await _cancel(tasks)
        raise


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """Run tasks like `asyncio.TaskGroup`, but raise a single error instead of a group.

    An internal error takes precedence over a ServiceError, which would hide it.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except ExceptionGroup as group:
        raise min(group.exceptions, key=lambda error: isinstance(error, ServiceError)) from group


async def in_order(
    work: Callable[[A], Coroutine[Any, Any, B]], items: Iterable[A], *, ahead: int
) -> AsyncGenerator[B, None]:
    """Yield the results of `work` for the items, in order, with up to `ahead` running at once.

    Work on the next items continues while the consumer handles a result. Close the generator with
    `contextlib.aclosing`, which cancels running work.
    """
    waiting = iter(items)
    running = deque(asyncio.create_task(work(item)) for item in islice(waiting, ahead))
    try:
        while running:
            result = await running[0]
            running.popleft()
            running.extend(asyncio.create_task(work(item)) for item in islice(waiting, 1))
            yield result
    finally:
        await _cancel(running)


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
