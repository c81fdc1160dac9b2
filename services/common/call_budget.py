"""Calls and bytes in progress of a server, in total and by caller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.server_limits import ServerLimits

RETRY_AFTER_S = 0.5
"""Recommended delay before a retry of a refused call, in seconds."""


class CallBudget:
    """Admits calls and bytes up to the limits of a server; refuses more with OVERLOADED.

    A caller gets at most its share of each, so that it can't shut out the others.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self._calls: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._total_calls = 0
        self._total_bytes = 0
        self._incoming: Mapping[str, int] = {}
        self._total_incoming = 0

    @property
    def max_caller_bytes(self) -> int:
        return int(self.limits.max_buffered_bytes * self.limits.caller_share)

    def admit(self, caller: str) -> Reservation:
        """Admit a call without bytes. Close the reservation after the call.

        Raises:
            ServiceError: OVERLOADED.
        """
        limits = self.limits
        if self._total_calls >= limits.max_open_calls:
            raise _overloaded(f"{limits.max_open_calls} calls are in progress, the limit")
        max_caller_calls = max(1, int(limits.max_open_calls * limits.caller_share))
        if self._calls[caller] >= max_caller_calls:
            raise _overloaded(
                f"{max_caller_calls} calls of this caller are in progress, its share of the limit"
            )
        self._calls[caller] += 1
        self._total_calls += 1
        return Reservation(self, caller)

    def set_incoming(self, incoming: Mapping[str, int]) -> None:
        """Set the bytes of incomplete requests, by caller."""
        self._incoming = incoming
        self._total_incoming = sum(incoming.values())

    def excess_bytes(self, caller: str) -> int:
        """Return by how many bytes a caller, or all callers, are over their limit; 0 if neither."""
        used = self._bytes[caller] + self._incoming.get(caller, 0)
        total = self._total_bytes + self._total_incoming
        return max(0, used - self.max_caller_bytes, total - self.limits.max_buffered_bytes)

    def grow(self, caller: str, size_bytes: int) -> None:
        """Add bytes of a caller.

        A message is admitted, whatever its size, if the caller has no other bytes in progress.

        Raises:
            ServiceError: OVERLOADED.
        """
        is_first = caller not in self._bytes
        self._bytes[caller] += size_bytes
        self._total_bytes += size_bytes
        if not is_first and self.excess_bytes(caller):
            self.shrink(caller, size_bytes)
            raise _overloaded("too many bytes of requests and responses are in progress")

    def shrink(self, caller: str, size_bytes: int) -> None:
        """Remove bytes of a caller."""
        self._bytes[caller] -= size_bytes
        self._total_bytes -= size_bytes
        if not self._bytes[caller]:
            del self._bytes[caller]

    def finish(self, caller: str) -> None:
        """Remove a call."""
        self._calls[caller] -= 1
        self._total_calls -= 1
        if not self._calls[caller]:
            del self._calls[caller]


class Reservation:
    """Part of a budget that one call holds."""

    def __init__(self, budget: CallBudget, caller: str) -> None:
        self.caller = caller
        self._budget = budget
        self._size_bytes = 0
        self._is_open = True

    def resize(self, size_bytes: int) -> None:
        """Set the bytes of the call. A smaller size is always admitted.

        Raises:
            ServiceError: OVERLOADED; the size stays as it was.
        """
        change = size_bytes - self._size_bytes
        if change > 0 and self._is_open:
            self._budget.grow(self.caller, change)
        elif change < 0 and self._is_open:
            self._budget.shrink(self.caller, -change)
        self._size_bytes = size_bytes

    def close(self) -> None:
        """Return everything to the budget. A second call has no effect."""
        if not self._is_open:
            return
        self.resize(0)
        self._is_open = False
        self._budget.finish(self.caller)


def _overloaded(message: str) -> ServiceError:
    return ServiceError(Reason.OVERLOADED, f"{message}; retry later", retry_after_s=RETRY_AFTER_S)
