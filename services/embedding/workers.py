"""A pool of threads for tasks that would block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """A bounded pool of threads; decoding, resizing and hashing release the GIL."""

    def __init__(self, threads: int, name: str) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in a thread.

        If the caller is cancelled while the function runs, the cancellation takes effect when the
        function has ended, so that the caller does not release what the function still uses. A
        function that has not started is never run.
        """
        task = self._pool.submit(function, *args, **kwargs)
        try:
            return await asyncio.wrap_future(task)
        except asyncio.CancelledError:
            if task.running():
                running = asyncio.wrap_future(task)
                await asyncio.wait([running])
                running.exception()  # asyncio would log an error that nobody waits for
            raise

    def close(self) -> None:
        """Drop functions that have not started; do not wait for those that run."""
        self._pool.shutdown(wait=False, cancel_futures=True)
