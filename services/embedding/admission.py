"""How much work is let in: a budget of pixels, so that memory is bounded whatever is sent.

The first picture of a call is admitted at once or the call is refused, so that a refusal comes
before any work. The other pictures of a batch wait for one another: a batch larger than the budget
passes through it a few pictures at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from imagesearch_services.common.errors import Reason, ServiceError


class PixelBudget:
    """Pixels that may be held at once. For one event loop."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self._free = pixels
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def free(self) -> int:
        """Pixels that nobody holds."""
        return self._free

    def try_take(self, pixels: int) -> bool:
        """Take pixels now; False where too few are left or others wait for them already."""
        if self._waiting or pixels > self._free:
            return False
        self._free -= pixels
        return True

    async def take(self, pixels: int) -> None:
        """Take pixels as soon as there are enough, in the order of asking."""
        if self.try_take(pixels):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._serve_waiting()  # the next one may need less
            else:  # the turn came in the very moment
                self.give_back(pixels)
            raise

    def give_back(self, pixels: int) -> None:
        """Return pixels that were taken."""
        self._free += pixels
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        while self._waiting:
            pixels, turn = self._waiting[0]
            if not turn.cancelled():
                if pixels > self._free:
                    return
                self._free -= pixels
                turn.set_result(None)
            self._waiting.popleft()


class Grant:
    """Pixels that one picture holds, of each budget that it counts for."""

    def __init__(self) -> None:
        self.held: dict[PixelBudget, int] = {}

    def shrink_to(self, pixels: int) -> None:
        """Give back all but this many; never takes more."""
        for budget, held in self.held.items():
            if held > pixels:
                self.held[budget] = pixels
                budget.give_back(held - pixels)


class CallAdmission:
    """Admits the pictures of one call.

    A batch holds at most half of the budget, so that it leaves room for others; a single picture
    may take all of it.
    """

    def __init__(self, budget: PixelBudget, *, retry_after_s: float) -> None:
        self._budget = budget
        self._share = PixelBudget(max(1, budget.pixels // 2))
        self._retry_after_s = retry_after_s
        self._admitted = False

    @asynccontextmanager
    async def admit(self, pixels: int) -> AsyncIterator[Grant]:
        """Hold pixels for a picture while it is worked on.

        Raises:
            ServiceError: OVERLOADED; only for the first picture of the call.
        """
        wanted = {
            self._share: min(pixels, self._share.pixels),
            self._budget: min(pixels, self._budget.pixels),
        }
        grant = Grant()
        try:
            for budget, share in wanted.items():
                if self._admitted:
                    await budget.take(share)
                elif not budget.try_take(share):
                    raise ServiceError(
                        Reason.OVERLOADED,
                        "the pictures in work fill the budget",
                        retry_after_s=self._retry_after_s,
                    )
                grant.held[budget] = share
            self._admitted = True
            yield grant
        finally:
            grant.shrink_to(0)
