"""Durations of the steps of a call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from imagesearch_services.common.types import (
    StepTiming,
)


class Stopwatch:
    """Times of a search's steps."""

    def __init__(self) -> None:
        self._started_s = time.perf_counter()
        self._timings: list[StepTiming] = []

    @contextmanager
    def step(self, name: str) -> Iterator[list[StepTiming]]:
        """Time a step; timings that are put into the list are told as its parts."""
        parts: list[StepTiming] = []
        started_s = time.perf_counter()
        yield parts
        self._timings.append(StepTiming(name, _since_ms(started_s)))
        self._timings += (StepTiming(f"{name}:{part.step}", part.duration_ms) for part in parts)

    def timings(self) -> list[StepTiming]:
        return [*self._timings, StepTiming("total", _since_ms(self._started_s))]


def _since_ms(started_s: float) -> float:
    return (time.perf_counter() - started_s) * 1e3
