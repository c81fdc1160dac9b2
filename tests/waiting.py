"""Helpers that wait for a condition."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import grpc


async def until(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait until a condition holds; it may be a coroutine function."""
    async with asyncio.timeout(timeout_s):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return
            await asyncio.sleep(0.02)


def eventually(attempt: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Repeat an attempt while it fails with UNAVAILABLE, for at most `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            attempt()
        except grpc.RpcError as error:
            if time.monotonic() > deadline_s or error.code() is not grpc.StatusCode.UNAVAILABLE:  # type: ignore[attr-defined]
                raise
        else:
            return
