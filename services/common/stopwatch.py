"""Durations of the steps of a call."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from imagesearch_services.common.types import StepTiming

TOTAL = "total"
"""Name of the last timing, which covers the whole call."""


class Stopwatch:
    """Measures the durations of the steps of a call. Threads may share it.

    Durations of steps with the same name are added up, so steps that run concurrently may add up to
    more than the total. A second stage of a call continues the timings of the first:

        stopwatch = Stopwatch(answer.timings)
        with stopwatch.step("draw"):
            ...
        replace(answer, timings=stopwatch.timings())
    """

    def __init__(self, earlier: Sequence[StepTiming] = ()) -> None:
        """Start to measure the total.

        Args:
            earlier: timings of a previous stage; its steps are kept and its total is added.
        """
        self._started_s = time.perf_counter()
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._earlier_ms = sum(timing.duration_ms for timing in earlier if timing.step == TOTAL)
        self.extend(earlier)

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

    def extend(self, timings: Iterable[StepTiming]) -> None:
        """Add steps that were timed elsewhere, without their total."""
        for timing in timings:
            if timing.step != TOTAL:
                self.add(timing.step, timing.duration_ms / 1e3)

    def timings(self) -> list[StepTiming]:
        """Return the duration of each step, in the order of their start, and the total so far."""
        with self._lock:
            steps = [StepTiming(name, 1e3 * seconds) for name, seconds in self._seconds.items()]
        total_ms = self._earlier_ms + 1e3 * (time.perf_counter() - self._started_s)
        return [*steps, StepTiming(TOTAL, total_ms)]
