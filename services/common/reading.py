"""Incomplete requests: how many bytes they hold, and which of them are ended.

gRPC hands over a message when it is complete. Until then its bytes are what the kernel received
on the connection and no call has read yet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from imagesearch_services.common.call_budget import CallBudget
from imagesearch_services.common.connections import Connections
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.server_limits import UNREAD_BYTES

INTERVAL_S = 0.02
"""Interval of the checks, in seconds. A request that arrives faster costs no check."""
REFRESH_INTERVAL_S = 0.1
"""Minimum interval of the searches for new connections, in seconds."""
MESSAGES_PER_COUNT = 256
"""Number of messages after which the bytes of a connection are counted from zero again, because
headers, frames and refused messages are not subtracted."""
MAX_CONNECTIONS_REMEMBERED = 8192
ALLOCATION_FACTOR = 2
"""Memory that an incomplete request takes, in its bytes: gRPC fills its buffers only in part, and
more arrives until the next check."""

Abort = Callable[[ServiceError], None]
"""Ends a call with an error."""


@dataclass(slots=True, eq=False)
class Incoming:
    """Bytes of one connection that no call has read."""

    peer: str
    base_bytes: int = 0
    """Bytes received before the count began."""
    read_bytes: int = 0
    """Bytes of the messages read since then."""
    messages: int = 0
    calls: int = 0
    """Calls of the connection so far."""
    total_read_bytes: int = 0
    """Bytes of all messages read so far."""
    received_bytes: int = 0
    """Bytes received at the last check."""
    progress_s: float = 0.0
    """Time of the last check that saw new bytes."""
    readers: set[Reading] = field(default_factory=set)
    """Calls whose request is incomplete."""


@dataclass(slots=True, eq=False)
class Reading:
    """A call whose request is incomplete."""

    caller: str
    connection: Incoming
    abort: Abort
    started_s: float


class RequestWatch:
    """Watches incomplete requests and ends those that are too slow or hold too many bytes.

    Args:
        budget: limits and bytes in progress of the server.
        connections: connections of the server.
        max_message_bytes: maximum bytes of a message.
    """

    def __init__(
        self, budget: CallBudget, connections: Connections, max_message_bytes: int
    ) -> None:
        self._budget = budget
        self._limits = budget.limits
        self._connections = connections
        self._max_message_bytes = max_message_bytes
        self._incoming: dict[str, Incoming] = {}
        self._readings: dict[Reading, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._refreshed_s = 0.0

    def start(self, peer: str, caller: str, abort: Abort) -> Reading:
        """Begin to watch a call. Call `finish` when its message is complete or the call ends."""
        connection = self._find(peer)
        if connection.messages >= MESSAGES_PER_COUNT and not connection.readers:
            connection.base_bytes = self._connections.received_bytes(peer) or 0
            connection.read_bytes = connection.messages = 0
        reading = Reading(caller, connection, abort, time.monotonic())
        connection.readers.add(reading)
        self._readings[reading] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._check)
        return reading

    def finish(self, reading: Reading, size_bytes: int | None) -> None:
        """Stop watching a call that read a message of a size; None: gRPC dropped what arrived."""
        if reading not in self._readings:
            return
        connection = reading.connection
        if size_bytes is None:
            received = self._connections.received_bytes(connection.peer) or 0
            unread = received - connection.base_bytes - connection.read_bytes
            size_bytes = max(0, unread) // len(connection.readers)
        connection.readers.discard(reading)
        connection.read_bytes += size_bytes
        connection.total_read_bytes += size_bytes
        connection.messages += 1
        del self._readings[reading]

    def note_call(self, peer: str) -> None:
        """Count a call of a connection."""
        self._find(peer).calls += 1

    def activity(self, peer: str) -> tuple[int, int, bool]:
        """Return the calls of a connection, the bytes they read, and whether one is reading."""
        found = self._incoming.get(peer)
        return (
            (found.calls, found.total_read_bytes, bool(found.readers)) if found else (0, 0, False)
        )

    def _find(self, peer: str) -> Incoming:
        connection = self._incoming.get(peer)
        if connection is None:
            self._forget_closed()
            # A connection without a count is new, unless its count was forgotten.
            base_bytes = self._connections.received_bytes(peer) or 0
            connection = self._incoming[peer] = Incoming(peer, base_bytes)
        return connection

    def _check(self) -> None:
        self._timer = None
        now_s = time.monotonic()
        slow = []
        for reading in self._readings:
            if now_s - reading.started_s < INTERVAL_S:
                break
            slow.append(reading)
        held = self._measure({reading.connection for reading in slow}, now_s)
        for reading in slow:
            self._check_speed(reading, held[reading.connection], now_s)
        self._check_budget(held)
        if self._readings:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._check)

    def _measure(self, connections: Iterable[Incoming], now_s: float) -> dict[Incoming, int]:
        """Return the unread bytes of connections."""
        held: dict[Incoming, int] = {}
        for connection in connections:
            received = self._connections.received_bytes(connection.peer)
            if received is None and now_s - self._refreshed_s >= REFRESH_INTERVAL_S:
                self._connections.refresh()
                self._refreshed_s = now_s
                received = self._connections.received_bytes(connection.peer)
            if received is None:
                # If the kernel does not count, assume the worst. Else the connection is closed, or
                # is found by the next refresh.
                is_open = self._connections.is_open(connection.peer)
                unknown_bytes = len(connection.readers) * self._max_message_bytes
                held[connection] = unknown_bytes if is_open else 0
                continue
            if received != connection.received_bytes:
                connection.received_bytes = received
                connection.progress_s = now_s
            unread = received - connection.base_bytes - connection.read_bytes
            if unread < 0:
                # The peer opened another connection from the same port.
                connection.base_bytes = connection.read_bytes = 0
                unread = received
            held[connection] = unread * ALLOCATION_FACTOR
        return held

    def _check_speed(self, reading: Reading, held_bytes: int, now_s: float) -> None:
        """End a call without progress, or slower than the minimum rate."""
        limits = self._limits
        age_s = now_s - reading.started_s
        idle_s = now_s - max(reading.started_s, reading.connection.progress_s)
        arrived_bytes = held_bytes / max(1, len(reading.connection.readers))
        allowed_s = limits.read_timeout_s + arrived_bytes / limits.min_bytes_per_s
        if idle_s > limits.read_timeout_s or age_s > allowed_s:
            self._end(
                reading,
                ServiceError(
                    Reason.CALLER_TOO_SLOW,
                    f"the request is incomplete after {age_s:.0f} s; send at least "
                    f"{limits.min_bytes_per_s} bytes per second, without pauses of more than "
                    f"{limits.read_timeout_s:g} s",
                    metadata={"timeout_s": f"{limits.read_timeout_s:g}"},
                ),
            )

    def _check_budget(self, held: dict[Incoming, int]) -> None:
        """End the calls of callers that are over their limit, the largest connection first."""
        for connection in sorted(held, key=held.__getitem__, reverse=True):
            self._budget.set_incoming(_by_caller(held))
            for reading in list(connection.readers):
                if not self._budget.excess_bytes(reading.caller) or held[connection] < UNREAD_BYTES:
                    break
                held[connection] -= held[connection] // len(connection.readers)
                self._end(
                    reading,
                    ServiceError(
                        Reason.OVERLOADED,
                        "too many bytes of incomplete requests are in progress; retry later",
                        retry_after_s=1.0,
                    ),
                )
                self._budget.set_incoming(_by_caller(held))
        self._budget.set_incoming(_by_caller(held))

    def _end(self, reading: Reading, error: ServiceError) -> None:
        self.finish(reading, None)
        reading.abort(error)

    def _forget_closed(self) -> None:
        if len(self._incoming) < MAX_CONNECTIONS_REMEMBERED:
            return
        self._incoming = {
            peer: connection for peer, connection in self._incoming.items() if connection.readers
        }


def _by_caller(held: dict[Incoming, int]) -> dict[str, int]:
    """Return the bytes by caller. The bytes of a connection are divided among its calls."""
    sums: dict[str, int] = {}
    for connection, size_bytes in held.items():
        for reading in connection.readers:
            share = size_bytes // len(connection.readers)
            sums[reading.caller] = sums.get(reading.caller, 0) + share
    return sums
