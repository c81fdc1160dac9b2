"""Waiting for several things at once."""

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
    """Run two coroutines at once. When one fails the other is cancelled, and its error is raised.

    `asyncio.gather` would leave the other one running; a task group would wrap the error.
    """
    tasks = (asyncio.create_task(first), asyncio.create_task(second))
    await _all_done(tasks)
    return tasks[0].result(), tasks[1].result()


async def together(several: Iterable[Coroutine[Any, Any, A]]) -> list[A]:
    """Run several coroutines at once, as `both` runs two; give the results in their order."""
    tasks = [asyncio.create_task(one) for one in several]
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
    """Run tasks as `asyncio.TaskGroup` does, but raise one of their errors instead of a group.

    Internal errors take precedence over a ServiceError, so that none is hidden.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except ExceptionGroup as group:
        raise min(group.exceptions, key=lambda each: isinstance(each, ServiceError)) from group


async def in_order(
    work: Callable[[A], Coroutine[Any, Any, B]], items: Iterable[A], *, ahead: int
) -> AsyncGenerator[B, None]:
    """Work on the items, up to `ahead` of them at once, and give the results in their order.

    While the consumer is busy with a result, those that follow are being worked on. Close the
    generator (`contextlib.aclosing`): what is still running then is cancelled.
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
