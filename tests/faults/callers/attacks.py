"""Kinds of hostile callers. Each holds its connections until the measurement ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from imagesearch.gateway.v1 import image_pb2, search_pb2
from tests.faults.callers.services import HOSTILE, LIBRARY
from tests.raw_http2 import RawConnection, message

SERVICE = "/imagesearch.gateway.v1.ImageSearchService/"
TOKEN = [(b"authorization", f"Bearer {HOSTILE}".encode())]
MIB = 1 << 20
SMALL_PART = 4 * MIB
LARGE_PART = 28 * MIB
DECLARED = 30 * MIB


@dataclass(slots=True)
class Attack:
    """What hostile callers did, and what the server answered."""

    target: str
    stack: ExitStack
    connections: list[RawConnection] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def connect(self, **options: int) -> RawConnection:
        connection = self.stack.enter_context(RawConnection(self.target, **options))
        self.connections.append(connection)
        return connection

    def poll(self) -> None:
        """Process what the servers sent."""
        for connection in self.connections:
            if not connection.is_closed:
                connection.poll()

    def answers(self) -> dict[str, int]:
        """Return how many calls ended, by gRPC status, and how many connections did."""
        counts: Counter[str] = Counter()
        for connection in self.connections:
            for headers in connection.headers.values():
                if b"grpc-status" in headers:
                    counts[f"status {headers[b'grpc-status'].decode()}"] += 1
            counts["reset"] += len(connection.resets.keys() - connection.headers.keys())
            counts["closed"] += connection.is_closed
        return {name: count for name, count in counts.items() if count}


def half_sent(count: int, part_bytes: int, *, token: bool) -> Callable[[Attack], None]:
    def attack(state: Attack) -> None:
        data = message(b"\0" * part_bytes, declared_bytes=DECLARED)
        for _ in range(count):
            connection = state.connect()
            stream = connection.open(SERVICE + "BatchAddImages", TOKEN if token else ())
            connection.send(stream, data, timeout_s=1.0)

    return attack


def trickling(count: int) -> Callable[[Attack], None]:
    def attack(state: Attack) -> None:
        opened = []
        for _ in range(count):
            connection = state.connect()
            opened.append((connection, connection.open(SERVICE + "SearchImages", TOKEN)))
        for connection, stream in opened:
            connection.send(stream, message(b"", declared_bytes=DECLARED))
        end_s = time.monotonic() + 15
        while time.monotonic() < end_s:
            for connection, stream in opened:
                connection.send(stream, b"\0", timeout_s=0.01)
            time.sleep(0.5)

    return attack


def unread_lists(count: int, per_connection: int = 10) -> Callable[[Attack], None]:
    request = image_pb2.ListImagesRequest(parent=f"libraries/{LIBRARY}", page_size=100)
    return _unread("ListImages", request.SerializeToString(), count, per_connection)


def unread_duplicates(count: int) -> Callable[[Attack], None]:
    request = search_pb2.FindDuplicatesRequest(parent=f"libraries/{LIBRARY}")
    return _unread("FindDuplicates", request.SerializeToString(), count, 1)


def header_flood(count: int, size_bytes: int) -> Callable[[Attack], None]:
    def attack(state: Attack) -> None:
        headers = [(f"x-{number}".encode(), b"y" * 1000) for number in range(size_bytes // 1000)]
        for _ in range(count):
            connection = state.connect()
            connection.open(SERVICE + "GetLibrary", [*TOKEN, *headers])

    return attack


def stream_flood(count: int) -> Callable[[Attack], None]:
    def attack(state: Attack) -> None:
        connection = state.connect()
        for number in range(count):
            if connection.is_closed:
                break
            stream = connection.open(SERVICE + "GetLibrary", TOKEN)
            connection.send(stream, message(b"", declared_bytes=1000), timeout_s=0.01)
            if number % 50 == 0:
                connection.poll()

    return attack


def idle_connections(count: int) -> Callable[[Attack], None]:
    def attack(state: Attack) -> None:
        for _ in range(count):
            state.connect()

    return attack


def _unread(
    method: str, request: bytes, count: int, per_connection: int
) -> Callable[[Attack], None]:
    def attack(state: Attack) -> None:
        while count > state.statuses["opened"]:
            connection = state.connect(window_bytes=0)
            for _ in range(min(per_connection, count - state.statuses["opened"])):
                stream = connection.open(SERVICE + method, TOKEN)
                connection.send(stream, message(request), end=True)
                state.statuses["opened"] += 1

    return attack


ATTACKS: dict[str, Callable[[Attack], None]] = {
    "25 half-sent messages, no token": half_sent(25, LARGE_PART, token=False),
    "200 half-sent messages, no token": half_sent(200, SMALL_PART, token=False),
    "25 half-sent messages": half_sent(25, LARGE_PART, token=True),
    "200 half-sent messages": half_sent(200, SMALL_PART, token=True),
    "50 messages at 2 bytes/s": trickling(50),
    "150 unread lists of 6.6 MB": unread_lists(150),
    "2 unread FindDuplicates": unread_duplicates(2),
    "20 unread FindDuplicates": unread_duplicates(20),
    "200 calls with 1 MB of headers": header_flood(200, 1_000_000),
    "10,000 calls on a connection": stream_flood(10_000),
    "3,000 connections": idle_connections(3_000),
}
