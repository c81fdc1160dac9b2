"""Sends prepared calls: a fixed number at once (closed loop), or at a rate (open loop)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import grpc
import grpc.aio

from imagesearch.client import ImageSearchError
from tests.faults.overload.traffic import Prepared

DEADLINE_S = 60.0
MAX_BACKOFF_S = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one call ended."""

    kind: str
    caller: str
    code: str
    reason: str
    retry_after_s: float | None
    duration_ms: float
    ended_s: float
    """Time of the end on the monotonic clock."""

    @property
    def is_admitted(self) -> bool:
        return self.code == "OK"

    @property
    def is_refused(self) -> bool:
        return self.code == "RESOURCE_EXHAUSTED"


Record = Callable[[Outcome], None]


class Driver:
    """Connections of several callers. They pass bytes on, so that the client stays cheap."""

    def __init__(self, target: str, tokens: Mapping[str, str]) -> None:
        """Prepare the connections.

        Args:
            target: address of the Gateway.
            tokens: bearer token of each caller.
        """
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = {
            caller: grpc.aio.insecure_channel(target, options=options) for caller in tokens
        }
        self._metadata = {
            caller: (("authorization", f"Bearer {token}"),) for caller, token in tokens.items()
        }
        self._methods: dict[tuple[str, str], Any] = {}
        self._running: set[asyncio.Task[Outcome]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels.values():
            await channel.close()

    async def closed_loop(
        self,
        calls: Iterator[tuple[str, Prepared]],
        concurrency: int,
        seconds: float,
        record: Record,
    ) -> None:
        """Keep a number of calls in progress; a refused caller waits as long as it was asked to."""
        end_s = time.monotonic() + seconds

        async def client() -> None:
            while time.monotonic() < end_s:
                outcome = await self.send(*next(calls))
                record(outcome)
                if not outcome.is_admitted:
                    await asyncio.sleep(min(outcome.retry_after_s or 0.1, MAX_BACKOFF_S))

        await asyncio.gather(*(client() for _ in range(concurrency)))

    async def open_loop(
        self, calls: Iterator[tuple[str, Prepared]], per_s: float, seconds: float, record: Record
    ) -> None:
        """Send calls at random times (a Poisson process), however many are in progress."""
        chance = random.Random(1)  # noqa: S311  # repeatable, not secret
        next_s = began_s = time.monotonic()
        while next_s < began_s + seconds:
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            task = asyncio.create_task(self.send(*next(calls)))
            self._running.add(task)
            task.add_done_callback(lambda done: self._finished(done, record))
            next_s += chance.expovariate(per_s)
        if self._running:
            await asyncio.wait(self._running)

    async def send(self, caller: str, request: Prepared) -> Outcome:
        method = self._method(caller, request.method)
        began_s = time.monotonic()
        code, reason, retry_after_s = "OK", "", None
        try:
            await method(request.body, timeout=DEADLINE_S, metadata=self._metadata[caller])
        except grpc.aio.AioRpcError as error:
            ended_s = time.monotonic()
            described = ImageSearchError.from_rpc_error(error)
            code, reason = described.code.name, described.reason
            retry_after_s = described.retry_after_s
        else:
            ended_s = time.monotonic()
        return Outcome(
            request.kind, caller, code, reason, retry_after_s, (ended_s - began_s) * 1e3, ended_s
        )

    @property
    def in_progress(self) -> int:
        """Calls of the open loop without an answer yet."""
        return len(self._running)

    def _finished(self, task: asyncio.Task[Outcome], record: Record) -> None:
        self._running.discard(task)
        record(task.result())

    def _method(self, caller: str, path: str) -> Any:
        key = (caller, path)
        if key not in self._methods:
            self._methods[key] = self._channels[caller].unary_unary(path)
        return self._methods[key]
