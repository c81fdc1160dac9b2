"""The learning rate as a function of the elapsed time."""

from __future__ import annotations

import time

import numpy as np
import torch

WARM_UP_STEPS = 60


class Schedule:
    """A learning rate that warms up and then decays as a cosine until the time is up."""

    def __init__(self, minutes: float, device: str, peak: float, floor: float) -> None:
        # Measure CPU time, so that other load on the machine does not reduce the number of steps.
        self._clock = time.process_time if device == "cpu" else time.perf_counter
        self._begin = self._clock()
        self._minutes, self._peak, self._floor = minutes, peak, floor

    @property
    def progress(self) -> float:
        """Elapsed share of the training time; above 1 once it is over."""
        return (self._clock() - self._begin) / (60 * self._minutes)

    @property
    def is_over(self) -> bool:
        return self.progress >= 1

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the rate of each parameter group, multiplied by its `scale`."""
        fall = (1 + np.cos(np.pi * self.progress)) / 2
        rate = self._floor + (self._peak - self._floor) * fall
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, step / WARM_UP_STEPS) * group.get("scale", 1.0)
