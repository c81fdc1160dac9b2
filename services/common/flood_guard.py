"""Closes connections that send bytes which belong to no call, such as endless headers.

gRPC reads headers of any size before it refuses them, and limits them only after the caller has
acknowledged the settings of the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from imagesearch_services.common.connections import Connections
from imagesearch_services.common.logs import logger
from imagesearch_services.common.reading import RequestWatch
from imagesearch_services.common.server_limits import UNREAD_BYTES

INTERVAL_S = 0.5
"""Interval of the checks, in seconds. A check takes about 10 µs for each connection."""
MAX_BYTES = 512 * 1024
"""Maximum bytes of a connection between two checks that no call reads."""
CALL_BYTES = UNREAD_BYTES + 16 * 1024
"""Further bytes for each call: its headers, and the start of the message of a refused call."""


@dataclass(frozen=True, slots=True)
class _Count:
    received_bytes: int = 0
    allowed_bytes: int = 0
    is_suspect: bool = False
    """Whether the last check found too many bytes."""


class FloodGuard:
    """Closes connections that send many bytes without a call that reads them.

    Args:
        connections: connections of the server.
        watches: calls of the server that read.
    """

    def __init__(self, connections: Connections, watches: Sequence[RequestWatch]) -> None:
        self._connections = connections
        self._watches = watches
        self._counts: dict[str, _Count] = {}

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.check()

    def check(self) -> None:
        """Close the connections that sent too many bytes since the last check."""
        counts = {}
        self._connections.refresh()
        for peer in self._connections.peers():
            received_bytes = self._connections.received_bytes(peer)
            if received_bytes is None:
                continue
            activities = [watch.activity(peer) for watch in self._watches]
            allowed_bytes = sum(calls * CALL_BYTES + read for calls, read, _ in activities)
            last = self._counts.get(peer, _Count())
            excess_bytes = received_bytes - last.received_bytes
            excess_bytes -= allowed_bytes - last.allowed_bytes
            if excess_bytes <= MAX_BYTES or any(is_reading for *_, is_reading in activities):
                counts[peer] = _Count(received_bytes, allowed_bytes)
            elif not last.is_suspect:
                # The calls that the bytes belong to may begin before the next check.
                counts[peer] = replace(last, is_suspect=True)
            else:
                logger().warning("connection.flood", peer=peer, bytes=excess_bytes)
                self._connections.close(peer)
        self._counts = counts
