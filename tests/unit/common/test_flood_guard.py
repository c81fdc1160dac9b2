"""Connections that send bytes of no call, and honest ones that look alike."""

from __future__ import annotations

from imagesearch_services.common.flood_guard import FloodGuard

MIB = 1 << 20


class Scripted:
    """A connection, its calls and its bytes."""

    def __init__(self) -> None:
        self.received = 0
        self.calls = 0
        self.read = 0
        self.is_reading = False
        self.is_closed = False
        self.guard = FloodGuard(self, [self])  # type: ignore[arg-type, list-item]  # both in one

    def refresh(self) -> None:
        """Find nothing new."""

    def peers(self) -> list[str]:
        return ["peer"]

    def received_bytes(self, _: str) -> int:
        return self.received

    def close(self, _: str) -> None:
        self.is_closed = True

    def activity(self, _: str) -> tuple[int, int, bool]:
        return self.calls, self.read, self.is_reading


def test_bytes_without_calls_close_the_connection() -> None:
    flood = Scripted()
    for _ in range(2):
        flood.received += MIB
        flood.guard.check()
    assert flood.is_closed


def test_calls_that_begin_after_a_check_account_for_their_bytes() -> None:
    burst = Scripted()
    for _ in range(5):
        burst.received += 200 * 64 * 1024
        burst.guard.check()
        burst.calls += 200
        burst.guard.check()
    assert not burst.is_closed


def test_bytes_of_a_request_that_arrives_or_was_read_are_no_flood() -> None:
    upload = Scripted()
    upload.calls, upload.is_reading = 1, True
    for _ in range(5):
        upload.received += MIB
        upload.guard.check()
    upload.read, upload.is_reading = 5 * MIB, False
    for _ in range(5):
        upload.guard.check()
    assert not upload.is_closed
