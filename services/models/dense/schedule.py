"""How long there is to learn, and how fast."""

from __future__ import annotations

import time

import numpy as np
import torch

WARM_UP_STEPS = 60


class Schedule:
    """A rate that rises for some steps and falls, as a cosine does, until the time is up."""

    def __init__(self, minutes: float, device: str, peak: float, floor: float) -> None:
        # A processor's time: a machine that is shared with others does not learn less.
        self._clock = time.process_time if device == "cpu" else time.perf_counter
        self._begin = self._clock()
        self._minutes, self._peak, self._floor = minutes, peak, floor

    @property
    def gone(self) -> float:
        """From 0 to 1."""
        return (self._clock() - self._begin) / (60 * self._minutes)

    @property
    def is_over(self) -> bool:
        return self.gone >= 1

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Sets the rates; a group's own `scale` counts."""
        fall = (1 + np.cos(np.pi * self.gone)) / 2
        rate = self._floor + (self._peak - self._floor) * fall
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, step / WARM_UP_STEPS) * group.get("scale", 1.0)
