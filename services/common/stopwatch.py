"""Durations of the steps of a call."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from imagesearch_services.common.types import StepTiming


class Stopwatch:
    """Times the steps of a call. Threads may share it.

    Durations under the same name are added up, so that the sum of steps that run at the same time
    may exceed the total.
    """

    def __init__(self) -> None:
        """Start the clock of the total."""
        self._started_s = time.perf_counter()
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[list[StepTiming]]:
        """Time a step; timings that are added to the yielded list are reported as its parts."""
        parts: list[StepTiming] = []
        self.add(name, 0.0)  # steps are reported in the order of their start
        started_s = time.perf_counter()
        try:
            yield parts
        finally:
            self.add(name, time.perf_counter() - started_s)
            for part in parts:
                self.add(f"{name}:{part.step}", part.duration_ms / 1e3)

    def add(self, name: str, seconds: float) -> None:
        """Add to the duration of a step."""
        with self._lock:
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def timings(self) -> list[StepTiming]:
        """Return the duration of each step, in the order of their start, and the total so far."""
        with self._lock:
            steps = [StepTiming(name, 1e3 * seconds) for name, seconds in self._seconds.items()]
        return [*steps, StepTiming("total", 1e3 * (time.perf_counter() - self._started_s))]
