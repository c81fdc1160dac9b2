"""Repeats the parts of an admitted batch that another service refuses for lack of capacity."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from imagesearch_services.common.context import time_remaining_s
from imagesearch_services.common.errors import Reason, ServiceError

T = TypeVar("T")

MAX_ATTEMPTS = 8
MAX_DELAY_S = 2.0
DEFAULT_DELAY_S = 0.5


async def patiently(work: Callable[[], Awaitable[T]], on_overload: Callable[[], None]) -> T:
    """Run work, and repeat it with growing random delays while it fails with OVERLOADED.

    Args:
        work: work that may be repeated.
        on_overload: called after each refusal.

    Raises:
        ServiceError: the error of the work; OVERLOADED after the last attempt, or if the deadline
            of the call would pass before the next.
    """
    for attempt in range(1, MAX_ATTEMPTS):
        try:
            return await work()
        except ServiceError as error:
            if error.reason is not Reason.OVERLOADED:
                raise
            on_overload()
            delay_s = min(MAX_DELAY_S, (error.retry_after_s or DEFAULT_DELAY_S) * attempt)
            delay_s *= 0.5 + random.random()  # noqa: S311  # spreads retries
            if delay_s >= time_remaining_s(2 * delay_s):
                raise
            await asyncio.sleep(delay_s)
    return await work()
