"""The limit in front of simulated services, which queue calls like Embedding does."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.gateway.call_limit import CallLimit, CallLimitSettings

IN_PROGRESS = 4
"""Calls that a service works on at once."""
SHORT_S, LONG_S, LONG_SHARE = 0.2, 2.0, 0.05
"""Duration of most calls, duration of the others, and their share."""
MEAN_S = (1 - LONG_SHARE) * SHORT_S + LONG_SHARE * LONG_S
SIMULATED_S = 200.0


@dataclass
class Service:
    """A service with a queue in order of arrival."""

    busy: int = 0
    queue: deque[tuple[float, AbstractContextManager[None]]] = field(default_factory=deque)


class Simulation:
    """Services behind one limit, to which calls arrive at random times."""

    def __init__(self, services: int, load: float) -> None:
        """Prepare to run.

        Args:
            services: number of services.
            load: calls that arrive, as a multiple of those that can be answered.
        """
        self.now_s = 0.0
        self.chance = random.Random(1)  # noqa: S311  # repeatable, not secret
        self.limit = CallLimit("calls", CallLimitSettings(), now_s=lambda: self.now_s)
        self.services = [Service() for _ in range(services)]
        self.capacity_per_s = services * IN_PROGRESS / MEAN_S
        self.arrivals_per_s = load * self.capacity_per_s
        self.durations_s: list[float] = []
        self.waits_s: list[float] = []
        self._next_service = itertools.cycle(self.services)
        self._events: list[tuple[float, int, Any]] = []
        self._numbers = itertools.count()

    def run(self) -> None:
        self._at(0.0, None)
        while self.now_s < SIMULATED_S:
            self.now_s, _, ended = heapq.heappop(self._events)
            if ended is None:
                self._arrive()
            else:
                self._end(*ended)

    def _at(self, time_s: float, ended: Any) -> None:
        heapq.heappush(self._events, (time_s, next(self._numbers), ended))

    def _arrive(self) -> None:
        self._at(self.now_s + self.chance.expovariate(self.arrivals_per_s), None)
        call = self.limit.admit("caller")
        try:
            call.__enter__()
        except ServiceError:
            return
        service = next(self._next_service)
        if service.busy < IN_PROGRESS:
            self._start(service, self.now_s, call)
        else:
            service.queue.append((self.now_s, call))

    def _start(
        self, service: Service, arrived_s: float, call: AbstractContextManager[None]
    ) -> None:
        service.busy += 1
        self.waits_s.append(self.now_s - arrived_s)
        self.limit.waited(self.now_s - arrived_s)
        mean_s = LONG_S if self.chance.random() < LONG_SHARE else SHORT_S
        end_s = self.now_s + mean_s * self.chance.uniform(0.5, 1.5)
        self._at(end_s, (service, arrived_s, call))

    def _end(self, service: Service, arrived_s: float, call: AbstractContextManager[None]) -> None:
        call.__exit__(None, None, None)
        self.durations_s.append(self.now_s - arrived_s)
        service.busy -= 1
        if service.queue:
            self._start(service, *service.queue.popleft())


@pytest.mark.parametrize("services", [1, 2, 6])
def test_the_limit_keeps_any_number_of_services_busy_and_their_queues_short(services: int) -> None:
    simulation = Simulation(services, load=4)
    simulation.run()
    answered_per_s = len(simulation.durations_s) / SIMULATED_S
    assert answered_per_s > 0.75 * simulation.capacity_per_s
    assert sum(simulation.waits_s) / len(simulation.waits_s) < 1.5 * MEAN_S
    slowest_s = sorted(simulation.durations_s)[int(0.99 * len(simulation.durations_s))]
    assert slowest_s < 2 * LONG_S, "the longest calls alone take up to 1.5 LONG_S"


def test_a_load_below_the_capacity_is_seldom_refused() -> None:
    simulation = Simulation(2, load=0.6)
    simulation.run()
    arrived = simulation.arrivals_per_s * SIMULATED_S
    assert len(simulation.durations_s) > 0.97 * arrived
