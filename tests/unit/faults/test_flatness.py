"""The judgement whether memory grows."""

from __future__ import annotations

import random

from tests.faults.soak.flatness import trend


def points(per_s: float, noise: float) -> list[tuple[float, float]]:
    chance = random.Random(1)  # noqa: S311  # repeatable, not secret
    return [(5.0 * step, 200 + per_s * 5 * step + chance.gauss(0, noise)) for step in range(150)]


def test_noise_is_flat() -> None:
    assert trend(points(0, 10)).is_flat(absolute=1, relative=0)


def test_steady_growth_is_found_under_noise() -> None:
    leak = trend(points(0.05, 10))
    assert not leak.is_flat(absolute=4, relative=0.03)
    assert 150 < leak.per_hour < 210


def test_growth_within_the_tolerance_is_flat() -> None:
    assert trend(points(0.004, 0.1)).is_flat(absolute=4, relative=0.03)


def test_a_peak_is_no_growth() -> None:
    values = points(0, 1)
    values[75] = (values[75][0], 5000.0)
    assert trend(values).is_flat(absolute=1, relative=0)
