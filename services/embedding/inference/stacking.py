"""Stacks the regions of one call's pictures into batches for Triton, as they become ready."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.inference.models import Model
from imagesearch_services.embedding.inference.registry import ModelRegistry

MAX_IN_FLIGHT = 2
"""Maximum stacks of one call and model at Triton: one stack runs while the next is queued."""

Inputs = npt.NDArray[np.uint8]
"""Preprocessed regions, RGB [regions, height, width, 3]."""
Rows = npt.NDArray[np.float32]
"""Outputs of a model for each region, see `ModelRegistry.run`."""


class Stacker:
    """Runs one model for one call; the regions that wait when Triton is free are sent as one stack.

    Regions never wait for a stack to fill, so that a single picture is not delayed.
    """

    def __init__(self, registry: ModelRegistry, model: Model, tasks: asyncio.TaskGroup) -> None:
        self._registry = registry
        self._model = model
        self._tasks = tasks
        self._waiting: deque[tuple[Inputs, asyncio.Future[Rows]]] = deque()
        self._in_flight = 0
        self.first_sent_s: float | None = None
        """Time at which the first stack was sent, on the clock of `time.perf_counter`."""
        self.last_answered_s: float | None = None
        """Time at which the last stack was answered, on the same clock."""

    async def run(self, inputs: Inputs) -> Rows:
        """Run the model on preprocessed regions, [regions, …] → [regions, row length].

        Raises:
            ServiceError: as `ModelRegistry.run`.
        """
        size = self._model.max_batch_size
        loop = asyncio.get_running_loop()
        parts: list[asyncio.Future[Rows]] = []
        for start in range(0, len(inputs), size):
            part: asyncio.Future[Rows] = loop.create_future()
            self._waiting.append((inputs[start : start + size], part))
            parts.append(part)
        self._send()
        rows = await asyncio.gather(*parts)
        if not rows:
            return np.empty((0, self._model.row_length), np.float32)
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _send(self) -> None:
        while self._waiting and self._in_flight < MAX_IN_FLIGHT:
            stack = [self._waiting.popleft()]
            rows = len(stack[0][0])
            while self._waiting and rows + len(self._waiting[0][0]) <= self._model.max_batch_size:
                stack.append(self._waiting.popleft())
                rows += len(stack[-1][0])
            self._in_flight += 1
            self._tasks.create_task(self._run_stack(stack))

    async def _run_stack(self, stack: list[tuple[Inputs, asyncio.Future[Rows]]]) -> None:
        """Run one stack. An error ends the whole call, through its task group."""
        inputs = [part for part, _ in stack]
        if self.first_sent_s is None:
            self.first_sent_s = time.perf_counter()
        rows = await self._registry.run(
            self._model, inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        )
        self.last_answered_s = time.perf_counter()
        self._in_flight -= 1
        start = 0
        for part, future in stack:
            future.set_result(rows[start : start + len(part)])
            start += len(part)
        self._send()
