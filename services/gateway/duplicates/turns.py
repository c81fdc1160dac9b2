"""Limits the scans that compute at the same time.

A scan computes only while its caller reads. So a scan whose caller has stopped reading gives up
its turn, and waits for another one when the caller reads again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from imagesearch_services.common.errors import Reason, ServiceError

RETRY_AFTER_S = 10.0
"""Delay before a retry of a refused scan, in seconds; a scan takes minutes."""
STALL_S = 0.5
"""Time that a caller may take to read an update before the scan gives up its turn, in seconds."""
RESUME_TIMEOUT_S = 30.0
"""Maximum time that a scan waits for its next turn, in seconds."""
STALLED_PER_TURN = 8
"""Maximum scans, stalled ones included, for each turn."""


class Turns:
    """Turns of scans; for use in one event loop.

    Args:
        count: maximum scans that compute at the same time.
        retry_after_s: recommended delay before a retry of a refused scan, in seconds.
    """

    def __init__(self, count: int, *, retry_after_s: float = RETRY_AFTER_S) -> None:
        self._free = count
        self._places = count * STALLED_PER_TURN
        self._retry_after_s = retry_after_s
        self._waiting: deque[asyncio.Future[None]] = deque()

    @contextmanager
    def take(self) -> Iterator[Turn]:
        """Begin a scan with a turn.

        Raises:
            ServiceError: OVERLOADED.
        """
        if not self._free or not self._places:
            raise self.overloaded()
        self._free -= 1
        self._places -= 1
        turn = Turn(self)
        try:
            yield turn
        finally:
            turn.pause_now()
            self._places += 1

    async def wait(self) -> None:
        """Wait for a turn.

        Raises:
            ServiceError: OVERLOADED.
        """
        if self._free:
            self._free -= 1
            return
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(given)
        try:
            async with asyncio.timeout(RESUME_TIMEOUT_S):
                await given
        except BaseException as error:
            if given in self._waiting:
                self._waiting.remove(given)
            elif given.done() and not given.cancelled():
                self.give_back()
            if isinstance(error, TimeoutError):
                raise self.overloaded() from None
            raise

    def give_back(self) -> None:
        """Return a turn, which goes to the scan that has waited longest."""
        while self._waiting:
            given = self._waiting.popleft()
            if not given.done():
                given.set_result(None)
                return
        self._free += 1

    def overloaded(self) -> ServiceError:
        return ServiceError(
            Reason.OVERLOADED,
            "too many FindDuplicates calls are in progress; retry later",
            retry_after_s=self._retry_after_s,
        )


class Turn:
    """The turn of a scan, which it has when it is created."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._is_held = True
        self._timer: asyncio.TimerHandle | None = None

    def pause(self) -> None:
        """Give the turn back unless `resume` is called soon."""
        self._timer = asyncio.get_running_loop().call_later(STALL_S, self.pause_now)

    def pause_now(self) -> None:
        """Give the turn back."""
        self._stop_timer()
        if self._is_held:
            self._is_held = False
            self._turns.give_back()

    async def resume(self) -> None:
        """Wait until the scan has a turn.

        Raises:
            ServiceError: OVERLOADED.
        """
        self._stop_timer()
        if not self._is_held:
            await self._turns.wait()
            self._is_held = True

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
