"""Admission by the pixel budget: pictures are admitted, wait, or are refused."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.admission import CallAdmission, PixelBudget


def call(budget: PixelBudget) -> CallAdmission:
    return CallAdmission(budget, retry_after_s=0.5)


async def settled() -> None:
    """Let each task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_first_picture_of_a_call_is_refused_when_the_budget_is_full() -> None:
    budget = PixelBudget(100)
    async with call(budget).admit(60):
        with pytest.raises(ServiceError) as caught:
            async with call(budget).admit(41):
                pytest.fail("was admitted")
        assert caught.value.reason is Reason.OVERLOADED
        assert caught.value.retry_after_s == 0.5
        assert budget.free == 40
    assert budget.free == 100


async def test_a_picture_may_take_the_whole_budget() -> None:
    budget = PixelBudget(100)
    async with call(budget).admit(100):
        assert budget.free == 0


async def test_a_picture_larger_than_the_budget_is_admitted_alone() -> None:
    budget = PixelBudget(100)
    async with call(budget).admit(1000):
        assert budget.free == 0
    assert budget.free == 100


async def test_the_other_pictures_of_a_batch_wait_for_each_other() -> None:
    budget = PixelBudget(100)
    batch = call(budget)
    active, max_active, done = 0, 0, 0

    async def work() -> None:
        nonlocal active, max_active, done
        async with batch.admit(20):
            active += 1
            max_active = max(max_active, active)
            await settled()
            active -= 1
            done += 1

    await asyncio.gather(*(work() for _ in range(50)))
    assert done == 50
    assert max_active == 2  # two pictures fit in half of the budget
    assert budget.free == 100


async def test_a_batch_leaves_room_for_another_call() -> None:
    budget = PixelBudget(100)
    batch = call(budget)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(batch.admit(25))
        await stack.enter_async_context(batch.admit(25))
        third = asyncio.create_task(stack.enter_async_context(batch.admit(25)))
        await settled()
        assert not third.done()
        async with call(budget).admit(50):
            assert budget.free == 0
        third.cancel()
        await asyncio.gather(third, return_exceptions=True)


async def test_waiting_callers_are_served_in_order() -> None:
    budget = PixelBudget(100)
    assert budget.try_take(100)
    served: list[str] = []

    async def take(name: str, pixels: int) -> None:
        await budget.take(pixels)
        served.append(name)

    waiting = [
        asyncio.create_task(take(name, pixels))
        for name, pixels in (("large", 80), ("small", 5), ("medium", 30))
    ]
    await settled()
    budget.give_back(20)
    await settled()
    assert served == []  # "small" would fit, but "large" came first
    assert not budget.try_take(1)
    budget.give_back(65)
    await settled()
    assert served == ["large", "small"]
    budget.give_back(30)
    await asyncio.gather(*waiting)
    assert served == ["large", "small", "medium"]


async def test_after_a_cancelled_caller_the_next_caller_is_served() -> None:
    budget = PixelBudget(100)
    assert budget.try_take(50)
    large = asyncio.create_task(budget.take(90))
    await settled()
    small = asyncio.create_task(budget.take(40))
    await settled()
    assert not small.done()
    large.cancel()
    await asyncio.gather(large, return_exceptions=True)
    await small
    assert budget.free == 10


async def test_pixels_granted_during_cancellation_are_given_back() -> None:
    budget = PixelBudget(100)
    assert budget.try_take(100)
    waiting = asyncio.create_task(budget.take(70))
    await settled()
    budget.give_back(100)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert budget.free == 100


async def test_a_cancelled_picture_gives_its_pixels_back() -> None:
    budget = PixelBudget(100)
    batch = call(budget)
    forever = asyncio.Event()

    async def work() -> None:
        async with batch.admit(50):
            await forever.wait()

    tasks = [asyncio.create_task(work()) for _ in range(3)]
    await settled()
    assert budget.free == 50
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert budget.free == 100


async def test_a_grant_shrinks_and_never_grows() -> None:
    budget = PixelBudget(100)
    async with call(budget).admit(90) as grant:
        grant.shrink_to(30)
        assert budget.free == 70
        grant.shrink_to(60)
        assert budget.free == 70
    assert budget.free == 100
