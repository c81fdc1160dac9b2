"""Threads for what would block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """A bounded pool of threads. Decoding, resizing and hashing let go of the interpreter lock."""

    def __init__(self, threads: int, name: str) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function in a thread.

        A cancelled caller goes on only when the function has ended or will never start, so that
        what it holds can be given back then.
        """
        job = self._pool.submit(function, *args, **kwargs)
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            if job.running():
                await asyncio.wait([asyncio.wrap_future(job)])
            raise

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
