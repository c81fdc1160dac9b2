"""Provides the threads and the pixel budget that all engines of the service share.

A task is short or long, by its expected duration. Each kind has its own threads, by default as many
as there are processors. The operating system shares the processors between both kinds, so that a
short task never waits for a long task: a photograph is embedded while large pictures are decoded,
drawn on or compared. Separate threads read the headers of files, so that an invalid picture is
refused at once even if all other threads are busy.

A task must not wait for another task of the runtime: if tasks that wait occupied all threads, they
would deadlock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import ParamSpec, TypeVar

from imagesearch_services.embedding.admission import CallAdmission, Grant, PixelBudget
from imagesearch_services.embedding.pictures.picture_file import PictureFile
from imagesearch_services.embedding.pictures.reusable_file import ReusableFile
from imagesearch_services.embedding.workers import Workers

P = ParamSpec("P")
T = TypeVar("T")

HEADER_THREADS = 2
"""Number of threads that read headers; a header takes less than a millisecond."""

TASKS_PER_THREAD = 2
"""Maximum tasks of one call that are queued or running, for each thread of a kind: enough to keep
the threads busy, few enough that another call's task runs soon."""

LARGE_PICTURE_PX = 8_000_000
"""Maximum pixels of a picture whose decoding is a short task; more take 0.1 s or longer."""


class Lane:
    """One call's access to the threads of one kind, with a limit on its queued tasks."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._turns = asyncio.Semaphore(TASKS_PER_THREAD * workers.threads)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in a thread; see `Workers.run` for the effect of cancellation."""
        async with self._turns:
            return await self._workers.run(function, *args, **kwargs)


class Call:
    """One call's share of the runtime."""

    def __init__(self, short: Lane, long: Lane, admission: CallAdmission) -> None:
        self.short = short
        """Lane for tasks of about 20 ms or less."""
        self.long = long
        """Lane for longer tasks, and for tasks that a call queues by the hundred."""
        self._admission = admission

    def lane_for(self, file: PictureFile) -> Lane:
        """Return the lane for tasks whose duration grows with the size of a picture."""
        return self.long if file.pixels > LARGE_PICTURE_PX else self.short

    def admit(self, pixels: int) -> AbstractAsyncContextManager[Grant]:
        """Hold pixels while they are processed, see `CallAdmission.admit`."""
        return self._admission.admit(pixels)


class Runtime:
    """Threads and pixel budget of the service. Close it once, after the last call."""

    def __init__(self, *, workers: int, pixel_budget: int, overload_retry_s: float) -> None:
        """Prepare the pools; threads start when tasks arrive.

        Args:
            workers: number of threads for short tasks, and as many for long tasks.
            pixel_budget: pixels that all calls together may hold.
            overload_retry_s: seconds after which a refused caller should retry.
        """
        self.budget = PixelBudget(pixel_budget)
        self._overload_retry_s = overload_retry_s
        self._headers = Workers(HEADER_THREADS, "headers")
        self._short = Workers(workers, "short-tasks")
        self._long = Workers(workers, "long-tasks")

    def start_call(self) -> Call:
        """Return a call's share of the runtime, which needs no clean-up."""
        admission = CallAdmission(self.budget, retry_after_s=self._overload_retry_s)
        return Call(Lane(self._short), Lane(self._long), admission)

    async def read_header(self, content: bytes) -> PictureFile:
        """Read the header of a picture file.

        Raises:
            ServiceError: as `PictureFile`.
        """
        return await self._headers.run(PictureFile, content)

    async def read_reusable_header(self, content: bytes) -> ReusableFile:
        """Read the header of a picture file that several steps of a call use.

        Raises:
            ServiceError: as `PictureFile`.
        """
        return await self._headers.run(ReusableFile, content)

    def close(self) -> None:
        """Drop tasks that have not started; do not wait for running tasks."""
        for workers in (self._headers, self._short, self._long):
            workers.close()
