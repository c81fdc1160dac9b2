"""Kills the processes of the suite in turn and starts them again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from imagesearch_services.runner.suite import Suite
from tests.faults.process_samples import sample

VICTIMS = ("embedding", "catalog/1", "catalog", "gateway", "triton")
"""`catalog/1` is the engine of the Catalog, which starts it again by itself."""
SETTLING_S = 10.0
"""Time after a restart in which the connections between the services are still made, seconds."""


class Outages:
    """The outages of a run; calls that fail during one are no fault."""

    def __init__(self, suite: Suite, write: Callable[[dict[str, Any]], None]) -> None:
        self._suite = suite
        self._write = write
        self._disturbed_until_s = 0.0

    def disturbs(self, began_s: float) -> bool:
        """Return whether a call that began then, on the monotonic clock, may have met an outage."""
        return began_s < self._disturbed_until_s

    async def run(self, seconds: float) -> None:
        """Kill each process once, evenly over some time."""
        for victim in VICTIMS:
            await asyncio.sleep(seconds / (len(VICTIMS) + 1))
            await self.kill(victim)

    async def kill(self, victim: str) -> None:
        began_s = time.monotonic()
        self._disturbed_until_s = began_s + 600
        if victim in self._suite.processes:
            await asyncio.to_thread(self._suite.processes[victim].kill)
            await asyncio.to_thread(self._suite.launch, victim)
        elif (child := sample(self._suite).get(victim)) is not None:
            os.kill(child.pid, signal.SIGKILL)
        for name in self._suite.ORDER:
            await asyncio.to_thread(self._suite.wait_serving, name)
        self._disturbed_until_s = time.monotonic() + SETTLING_S
        self._write(
            {
                "kind": "outage",
                "killed": victim,
                "serving_after_s": round(time.monotonic() - began_s, 1),
            }
        )
