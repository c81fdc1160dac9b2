"""Tails of distributions, extrapolated beyond the data.

The method is peaks over threshold (Pickands, "Statistical inference using extreme order
statistics", Annals of Statistics 1975) with shape 0, that is with an exponential excess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

TAIL_SHARE = 0.1
"""Share of the values that belong to the tail, the highest values."""
RESOLVED_COUNT = 5
"""Minimum number of values beyond a threshold for its rate to count as observed."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ExponentialTail:
    """The rate of values that are x or more: counted below the tail, fitted within it."""

    ascending: npt.NDArray[np.floating[Any]]
    """The observed values, ascending."""
    share: float
    """Share of the values in the tail."""
    start: float
    """The lowest value in the tail."""
    mean_excess: float
    """Mean excess of the tail over `start`."""

    @classmethod
    def of(cls, ascending: npt.NDArray[np.floating[Any]]) -> ExponentialTail:
        """Fit the tail to ascending values."""
        count = max(2, round(TAIL_SHARE * ascending.size))
        start = float(ascending[-count])
        mean_excess = float((ascending[-count:] - start).mean())
        return cls(ascending, count / ascending.size, start, mean_excess)

    def rates(self, at: Doubles) -> Doubles:
        """Return the share of values that are x or more, for each x in `at`."""
        size = self.ascending.size
        counted = (size - np.searchsorted(self.ascending, at, side="left")) / size
        excess = np.maximum(at - self.start, 0)
        fitted = self.share * np.exp(-excess / self.mean_excess)
        return np.where(at < self.start, counted, fitted)
