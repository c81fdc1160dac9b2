"""Bounds the calls that the service works on, and the calls that wait for them.

Few calls at once keep the processors busy: more of them would only take longer each. So a call
waits for its turn, in order of arrival, and a call that would wait too long is refused at once. A
single picture and the pictures of batches have a queue each: neither starves the other.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from imagesearch_services.common import metrics
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import QUEUE_STEP, StepTiming
from imagesearch_services.embedding.admission import PixelBudget
from imagesearch_services.embedding.slow_work import on_slow_work


class CallQueue:
    """A queue of calls, for use in a single event loop."""

    def __init__(self, work: str, *, in_progress: int, queued: int, retry_after_s: float) -> None:
        """Set the bounds.

        Args:
            work: name of the calls in metrics, for example "batches".
            in_progress: maximum pictures of the calls in progress.
            queued: maximum pictures of the calls that wait.
            retry_after_s: recommended delay before a refused call is repeated, in seconds.
        """
        self._work = work
        self._slots = PixelBudget(in_progress)
        self._max_queued = queued
        self._queued = 0
        self._retry_after_s = retry_after_s

    @asynccontextmanager
    async def turn(self, pictures: int = 1) -> AsyncIterator[float]:
        """Wait for the turn of a call and hold its place for the duration of a `with` block.

        A call with more pictures than may be in progress is admitted alone. A call whose picture
        takes long to decode loses its place before its end.

        Yields:
            The time that the call waited, in seconds; 0 if it did not wait.

        Raises:
            ServiceError: OVERLOADED.
        """
        size = min(pictures, self._slots.pixels)
        waited_s = 0.0
        if not self._slots.try_take(size):
            began_s = time.monotonic()
            await self._wait(size)
            waited_s = time.monotonic() - began_s
        metrics.ADMISSION.labels(self._work, "admitted").inc()
        self._report()
        held = [size]

        def give_back() -> None:
            if held:
                self._slots.give_back(held.pop())
                self._report()

        on_slow_work(give_back)
        try:
            yield waited_s
        finally:
            on_slow_work(None)
            give_back()

    async def _wait(self, size: int) -> None:
        if self._queued and self._queued + size > self._max_queued:
            metrics.ADMISSION.labels(self._work, "full").inc()
            raise ServiceError(
                Reason.OVERLOADED,
                "too many pictures wait to be embedded; retry later",
                retry_after_s=self._retry_after_s,
            )
        self._queued += size
        self._report()
        try:
            await self._slots.take(size)
        finally:
            self._queued -= size

    def _report(self) -> None:
        in_progress = self._slots.pixels - self._slots.free
        metrics.ADMISSION_IN_PROGRESS.labels(self._work).set(in_progress)
        metrics.ADMISSION_QUEUED.labels(self._work).set(self._queued)


def queue_timings(waited_s: float) -> list[StepTiming]:
    """Return the timing of the wait of a call, from which the Gateway learns how busy it is.

    A call that did not wait has none.
    """
    return [StepTiming(QUEUE_STEP, 1e3 * waited_s)] if waited_s else []
