"""Durations of the steps of a call."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.common.types import StepTiming


def milliseconds(stopwatch: Stopwatch) -> dict[str, float]:
    return {timing.step: timing.duration_ms for timing in stopwatch.timings()}


def test_durations_of_the_same_step_are_added_up() -> None:
    stopwatch = Stopwatch()
    stopwatch.add("decode", 0.25)
    stopwatch.add("decode", 0.5)
    assert milliseconds(stopwatch)["decode"] == pytest.approx(750)


def test_steps_are_reported_in_the_order_of_their_start_and_the_total_last() -> None:
    stopwatch = Stopwatch()
    with stopwatch.step("outer"), stopwatch.step("inner"):
        time.sleep(0.002)
    timings = milliseconds(stopwatch)
    assert list(timings) == ["outer", "inner", "total"]
    assert timings["total"] >= timings["outer"] >= timings["inner"] >= 2


def test_timings_of_another_service_are_reported_as_parts_of_a_step() -> None:
    stopwatch = Stopwatch()
    with stopwatch.step("embed") as parts:
        parts.append(StepTiming("decode", 12.5))
    assert milliseconds(stopwatch)["embed:decode"] == pytest.approx(12.5)


def test_a_step_that_fails_is_reported() -> None:
    stopwatch = Stopwatch()
    with pytest.raises(ValueError, match="broken"), stopwatch.step("decode"):
        raise ValueError("broken")
    assert "decode" in milliseconds(stopwatch)


def test_no_duration_is_lost_between_threads() -> None:
    stopwatch = Stopwatch()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(4000):
            pool.submit(stopwatch.add, "decode", 0.001)
    assert milliseconds(stopwatch)["decode"] == pytest.approx(4000)
