"""Provides the threads and the pixel budget that all engines of the service share.

A task is short or long, by its expected duration. Each kind has its own threads, by default as many
as there are processors. The operating system shares the processors between both kinds, so that a
short task never waits for a long task: a photograph is embedded while large pictures are decoded,
drawn on or compared. Files are opened and decoded in the processes of the cage, which these threads
never wait for.

A task must not wait for another task of the runtime: if tasks that wait occupied all threads, they
would deadlock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import ParamSpec, TypeVar

from imagesearch_services.embedding.admission import CallAdmission, Grant, PixelBudget
from imagesearch_services.embedding.pictures.opened_file import Decoder, OpenedFile
from imagesearch_services.embedding.pictures.picture import Picture
from imagesearch_services.embedding.workers import Workers

P = ParamSpec("P")
T = TypeVar("T")

TASKS_PER_THREAD = 2
"""Maximum tasks of one call that are queued or running, for each thread of a kind, and for each
worker of the cage: enough to keep them busy, few enough that another call's task runs soon."""

LARGE_PICTURE_PX = 8_000_000
"""Maximum pixels of a picture whose processing is a short task; more take 0.1 s or longer."""


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

    def __init__(
        self,
        short: Lane,
        long: Lane,
        admission: CallAdmission,
        decoder: Decoder,
        *,
        max_caged: int,
    ) -> None:
        self.short = short
        """Lane for tasks of about 20 ms or less."""
        self.long = long
        """Lane for longer tasks, and for tasks that a call queues by the hundred."""
        self._admission = admission
        self._decoder = decoder
        self._caged = asyncio.Semaphore(max_caged)

    async def open(self, content: bytes) -> OpenedFile:
        """Read the header of a picture file.

        Raises:
            ServiceError: an IMAGE_… reason or OVERLOADED.
        """
        async with self._caged:
            return await self._decoder.open(content)

    async def decode(self, file: OpenedFile, reduction: float = 1.0) -> Picture:
        """Decode a picture, whose pixels must be admitted; see `Decoder.decode`."""
        async with self._caged:
            return await file.decode(self._decoder, reduction)

    def lane_for(self, file: OpenedFile) -> Lane:
        """Return the lane for tasks whose duration grows with the size of a picture."""
        return self.long if file.pixels > LARGE_PICTURE_PX else self.short

    def admit(self, pixels: int) -> AbstractAsyncContextManager[Grant]:
        """Hold pixels while they are processed, see `CallAdmission.admit`."""
        return self._admission.admit(pixels)


class Runtime:
    """Threads and pixel budget of the service. Close it once, after the last call."""

    def __init__(
        self, *, workers: int, pixel_budget: int, overload_retry_s: float, decoder: Decoder
    ) -> None:
        """Prepare the pools; threads start when tasks arrive.

        Args:
            workers: number of threads for short tasks, and as many for long tasks.
            pixel_budget: pixels that all calls together may hold.
            overload_retry_s: seconds after which a refused caller should retry.
            decoder: opens and decodes picture files.
        """
        self._decoder = decoder
        self.budget = PixelBudget(pixel_budget)
        self._overload_retry_s = overload_retry_s
        self._short = Workers(workers, "short-tasks")
        self._long = Workers(workers, "long-tasks")

    def start_call(self) -> Call:
        """Return a call's share of the runtime, which needs no clean-up."""
        admission = CallAdmission(self.budget, retry_after_s=self._overload_retry_s)
        return Call(
            Lane(self._short),
            Lane(self._long),
            admission,
            self._decoder,
            max_caged=TASKS_PER_THREAD * self._short.threads,
        )

    def close(self) -> None:
        """Drop tasks that have not started; do not wait for running tasks."""
        for workers in (self._short, self._long):
            workers.close()
