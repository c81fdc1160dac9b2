"""Whether a measured quantity grows: a robust slope and a test of its sign."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

MAX_POINTS = 200
SIGNIFICANT_Z = 3.0
"""Minimum score of a trend, in standard deviations (Mann-Kendall); 1 in 700 by chance."""


@dataclass(frozen=True, slots=True)
class Trend:
    """The trend of a quantity over time."""

    level: float
    """Median of the values."""
    growth: float
    """Growth over the whole time, by the median of the slopes of all pairs (Theil-Sen)."""
    per_hour: float
    z: float
    """Score of the trend (Mann-Kendall): how many standard deviations from none."""

    def is_flat(self, *, absolute: float, relative: float) -> bool:
        """Return whether the growth is insignificant, or within a tolerance.

        Args:
            absolute: tolerated growth over the whole time, in the unit of the values.
            relative: tolerated growth over the whole time, as a share of the level.
        """
        return self.z < SIGNIFICANT_Z or self.growth <= max(absolute, relative * self.level)


def trend(points: Sequence[tuple[float, float]]) -> Trend:
    """Return the trend of at least three points (time in seconds, value)."""
    points = points[:: math.ceil(len(points) / MAX_POINTS)]
    pairs = list(combinations(points, 2))
    slope_per_s = statistics.median(
        (second[1] - first[1]) / (second[0] - first[0]) for first, second in pairs
    )
    count = len(points)
    score = sum((second[1] > first[1]) - (second[1] < first[1]) for first, second in pairs)
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    return Trend(
        level=statistics.median(value for _, value in points),
        growth=slope_per_s * (points[-1][0] - points[0][0]),
        per_hour=slope_per_s * 3600,
        z=score / deviation,
    )
