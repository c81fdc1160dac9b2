"""Threads and pixel budget of the runtime."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.runtime import LARGE_PICTURE_PX, TASKS_PER_THREAD, Lane, Runtime
from tests.decoding import InProcessDecoder, opened
from tests.pictures import encoded, photo, png_header

TIMEOUT_S = 10


@pytest_asyncio.fixture
async def runtime() -> AsyncIterator[Runtime]:
    runtime = Runtime(
        workers=1, pixel_budget=1_000_000, overload_retry_s=0.5, decoder=InProcessDecoder()
    )
    yield runtime
    runtime.close()


@asynccontextmanager
async def blocked(*lanes: Lane) -> AsyncIterator[None]:
    """Block the only thread of each lane."""
    done = threading.Event()
    started = [threading.Event() for _ in lanes]

    def wait(event: threading.Event) -> None:
        event.set()
        done.wait(TIMEOUT_S)

    tasks = [
        asyncio.create_task(lane.run(wait, event))
        for lane, event in zip(lanes, started, strict=True)
    ]
    try:
        for event in started:
            await asyncio.to_thread(event.wait, TIMEOUT_S)
        yield
    finally:
        done.set()
        await asyncio.gather(*tasks)


async def test_a_short_task_does_not_wait_for_long_tasks(runtime: Runtime) -> None:
    async with blocked(runtime.start_call().long), asyncio.timeout(TIMEOUT_S):
        assert await runtime.start_call().short.run(divmod, 7, 2) == (3, 1)


async def test_a_long_task_does_not_wait_for_short_tasks(runtime: Runtime) -> None:
    async with blocked(runtime.start_call().short), asyncio.timeout(TIMEOUT_S):
        assert await runtime.start_call().long.run(divmod, 7, 2) == (3, 1)


async def test_a_header_is_read_while_all_other_threads_are_busy(runtime: Runtime) -> None:
    call = runtime.start_call()
    async with blocked(call.short, call.long), asyncio.timeout(TIMEOUT_S):
        file = await call.open(encoded(photo(1, (320, 200))))
        assert (file.width, file.height) == (320, 200)
        with pytest.raises(ServiceError) as caught:
            await call.open(b"not a picture")
        assert caught.value.reason is Reason.IMAGE_UNREADABLE


async def test_a_call_with_many_tasks_does_not_starve_other_calls(runtime: Runtime) -> None:
    order: list[str] = []
    many, single = runtime.start_call(), runtime.start_call()
    async with blocked(runtime.start_call().short):
        tasks = [asyncio.create_task(many.short.run(order.append, "many")) for _ in range(10)]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(single.short.run(order.append, "single")))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order.index("single") == TASKS_PER_THREAD


async def test_large_pictures_take_the_long_lane(runtime: Runtime) -> None:
    call = runtime.start_call()
    side_px = int(LARGE_PICTURE_PX**0.5)
    assert call.lane_for(opened(png_header(side_px, side_px))) is call.short
    assert call.lane_for(opened(png_header(2 * side_px, side_px))) is call.long


async def test_calls_share_the_pixel_budget(runtime: Runtime) -> None:
    async with runtime.start_call().admit(900_000):
        with pytest.raises(ServiceError) as caught:
            async with runtime.start_call().admit(200_000):
                pytest.fail("was admitted")
    assert caught.value.reason is Reason.OVERLOADED
    assert caught.value.retry_after_s == 0.5
    assert runtime.budget.free == runtime.budget.pixels


async def test_a_closed_runtime_never_runs_queued_tasks(runtime: Runtime) -> None:
    ran = threading.Event()
    call = runtime.start_call()
    async with blocked(call.long):
        waiting = asyncio.create_task(call.long.run(ran.set))
        await asyncio.sleep(0)
        runtime.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert not ran.is_set()
