"""Limits the calls in progress to what the services behind the Gateway can answer in time.

The Gateway knows neither how many Embedding services there are nor how fast they are. Each of them
works on a few calls at once, queues the others, and returns how long a call waited for its turn.
The limit grows by one call for each round of calls while it is used up, and shrinks by a part when
calls wait for more than half of their duration, or when a service refuses one (additive increase,
multiplicative decrease: Chiu and Jain, 1989; the delay as the signal: Brakmo and Peterson, TCP
Vegas, 1995). So the queues stay short, and excess calls are refused here, where it is cheap.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from imagesearch_services.common import metrics
from imagesearch_services.common.errors import Reason, ServiceError

MIN_BACKOFF, MAX_BACKOFF = 0.9, 0.5
"""Factors that shrink the limit: at least the first, at most the second."""
MIN_MEAN_CALLS = 8.0
"""Minimum calls in the mean time that calls wait; it covers a round of calls if that is more."""
ACTIVE_S = 10.0
"""Time after its last call for which a caller counts for the shares, in seconds."""
MAX_CALLERS = 1000
"""Maximum callers that are remembered; the least recent are forgotten."""
RESERVED_SHARE = 1 / 8
"""Part of the limit that callers above their share leave free for others."""
EXCESS_SHARE = 1 / 4
"""Part of the limit by which callers below their share may exceed it."""
PRESSURE_DECAY_S = 5.0
"""Time constant of the counts of admitted and refused calls, in seconds."""
MIN_RETRY_S, MAX_RETRY_S = 0.5, 30.0


@dataclass(frozen=True, kw_only=True)
class CallLimitSettings:
    """Bounds of a limit, in calls."""

    initial: int = 32
    minimum: int = 8
    maximum: int = 512
    target_wait_s: float = 0.05
    """Mean time that calls may always wait for their turn in Embedding, in seconds. They may wait
    longer as long as it is less than half of their duration."""


class CallLimit:
    """Admits calls of several callers up to a limit that adapts; for use in one event loop."""

    def __init__(
        self,
        work: str,
        settings: CallLimitSettings,
        *,
        now_s: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Start at the initial limit.

        Args:
            work: name of the limited calls in metrics and errors, for example "batches".
            settings: bounds of the limit.
            now_s: clock, in seconds.
            chance: source of random numbers in [0, 1), which spread the retries.
        """
        self._work = work
        self._settings = settings
        self._set_limit(settings.initial)
        self._now_s = now_s
        self._chance = chance
        self._held: Counter[str] = Counter()
        self._in_progress = 0
        self._last_call_s: OrderedDict[str, float] = OrderedDict()
        self._last_backoff_s = -math.inf
        self._mean_wait_s = 0.0
        self._pressure = _Pressure(now_s())
        self._mean_duration_s = 0.0

    @property
    def limit(self) -> int:
        """Calls that may be in progress now."""
        return int(self._limit)

    def check(self, caller: str) -> None:
        """Refuse a call that `admit` would refuse now.

        Raises:
            ServiceError: OVERLOADED, with the delay after which a retry is likely to succeed.
        """
        now_s = self._now_s()
        self._remember(caller, now_s)
        if cause := self._refusal(caller):
            self._pressure.add(now_s, refused=1)
            metrics.ADMISSION.labels(self._work, cause).inc()
            raise self._overloaded()

    @contextmanager
    def admit(self, caller: str) -> Iterator[None]:
        """Count a call while it is in progress.

        Raises:
            ServiceError: OVERLOADED.
        """
        self.check(caller)
        now_s = self._now_s()
        self._pressure.add(now_s, admitted=1)
        metrics.ADMISSION.labels(self._work, "admitted").inc()
        self._change(caller, 1)
        try:
            yield
        except ServiceError as error:
            if error.reason is Reason.OVERLOADED:
                self.back_off()
            raise
        else:
            self._grow()
        finally:
            self._change(caller, -1)
            self._mean_duration_s += 0.1 * (self._now_s() - now_s - self._mean_duration_s)

    def waited(self, wait_s: float) -> None:
        """Note how long a part of a call waited for its turn; shrink the limit if it was long."""
        self._mean_wait_s += (wait_s - self._mean_wait_s) / max(MIN_MEAN_CALLS, self._limit)
        if self._mean_wait_s > self._target_wait_s():
            self.back_off(self._target_wait_s() / self._mean_wait_s)

    def back_off(self, factor: float = MIN_BACKOFF) -> None:
        """Shrink the limit, because a service refused a part of a call or let it wait.

        The effect shows when the calls in progress have ended: until then nothing more happens.
        """
        now_s = self._now_s()
        if now_s - self._last_backoff_s < self._mean_duration_s:
            return
        self._last_backoff_s = now_s
        used = min(self._limit, self._in_progress)
        self._set_limit(used * min(max(factor, MAX_BACKOFF), MIN_BACKOFF))

    def _grow(self) -> None:
        is_used_up = self._in_progress >= self.limit
        if is_used_up and self._mean_wait_s <= self._target_wait_s():
            self._set_limit(self._limit + 1 / self._limit)

    def _target_wait_s(self) -> float:
        return max(self._settings.target_wait_s, self._mean_duration_s / 2)

    def _set_limit(self, limit: float) -> None:
        self._limit = min(max(limit, self._settings.minimum), self._settings.maximum)
        metrics.ADMISSION_LIMIT.labels(self._work).set(self.limit)

    def _change(self, caller: str, calls: int) -> None:
        self._in_progress += calls
        self._held[caller] += calls
        if not self._held[caller]:
            del self._held[caller]
        metrics.ADMISSION_IN_PROGRESS.labels(self._work).set(self._in_progress)

    def _refusal(self, caller: str) -> str:
        """Return the cause to refuse a call, or "" to admit it.

        Callers that call at the same time have equal shares. A caller below its share may exceed
        the limit, so that the flood of another does not shut it out. A caller above its share may
        use what the others leave, but some calls stay free for them.
        """
        limit, callers = self.limit, len(self._last_call_s)
        if callers == 1:
            return "full" if self._in_progress >= limit else ""
        if self._held[caller] < math.ceil(limit / callers):
            most = limit + math.ceil(EXCESS_SHARE * limit)
            return "full" if self._in_progress >= most else ""
        most = limit - math.ceil(RESERVED_SHARE * limit)
        return "share" if self._in_progress >= most else ""

    def _remember(self, caller: str, now_s: float) -> None:
        calls = self._last_call_s
        calls[caller] = now_s
        calls.move_to_end(caller)
        while len(calls) > MAX_CALLERS or next(iter(calls.values())) < now_s - ACTIVE_S:
            calls.popitem(last=False)

    def _overloaded(self) -> ServiceError:
        # As many calls as were refused for each admitted call come back: spread them accordingly.
        expected_s = self._mean_duration_s * (1 + self._pressure.refused_per_admitted())
        delay_s = min(max(expected_s, MIN_RETRY_S), MAX_RETRY_S)
        return ServiceError(
            Reason.OVERLOADED,
            f"too many {self._work} are in progress; retry later",
            retry_after_s=delay_s * (0.5 + self._chance()),
        )


class _Pressure:
    """Counts of admitted and refused calls that decay with time."""

    def __init__(self, now_s: float) -> None:
        self._admitted = self._refused = 0.0
        self._changed_s = now_s

    def add(self, now_s: float, *, admitted: int = 0, refused: int = 0) -> None:
        kept = math.exp((self._changed_s - now_s) / PRESSURE_DECAY_S)
        self._changed_s = now_s
        self._admitted = self._admitted * kept + admitted
        self._refused = self._refused * kept + refused

    def refused_per_admitted(self) -> float:
        return self._refused / max(1.0, self._admitted)
