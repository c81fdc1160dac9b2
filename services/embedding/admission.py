"""Admits pictures by a budget of pixels, which bounds the memory that calls use.

The first picture of a call is admitted at once or the call is refused, so that a refusal precedes
any work. The other pictures of a batch wait for each other: a batch larger than the budget is
processed a few pictures at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from imagesearch_services.common.errors import Reason, ServiceError


class PixelBudget:
    """A budget of pixels that may be held at once, for use in a single event loop."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self._free = pixels
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def free(self) -> int:
        """Pixels that no picture holds."""
        return self._free

    def try_take(self, pixels: int) -> bool:
        """Take pixels now. Returns False if too few are free or others already wait for them."""
        if self._waiting or pixels > self._free:
            return False
        self._free -= pixels
        return True

    async def take(self, pixels: int) -> None:
        """Take pixels as soon as enough are free; waiting callers are served in order."""
        if self.try_take(pixels):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((pixels, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._serve_waiting()  # the next caller may need fewer pixels
            else:  # the pixels were granted just before the cancellation
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
    """Pixels that one picture holds in each budget that it counts toward."""

    def __init__(self) -> None:
        self.held: dict[PixelBudget, int] = {}

    def shrink_to(self, pixels: int) -> None:
        """Give back the pixels held beyond this number; a grant never grows."""
        for budget, held in self.held.items():
            if held > pixels:
                self.held[budget] = pixels
                budget.give_back(held - pixels)


class CallAdmission:
    """Admits the pictures of one call.

    A batch holds at most half of the budget, so that other calls find room; a single picture may
    take the whole budget.
    """

    def __init__(self, budget: PixelBudget, *, retry_after_s: float) -> None:
        self._budget = budget
        self._share = PixelBudget(max(1, budget.pixels // 2))
        self._retry_after_s = retry_after_s
        self._admitted = False

    @asynccontextmanager
    async def admit(self, pixels: int) -> AsyncIterator[Grant]:
        """Hold pixels for a picture while it is processed.

        Raises:
            ServiceError: OVERLOADED, only for the first picture of the call.
        """
        shares = {
            self._share: min(pixels, self._share.pixels),
            self._budget: min(pixels, self._budget.pixels),
        }
        grant = Grant()
        try:
            for budget, share in shares.items():
                if self._admitted:
                    await budget.take(share)
                elif not budget.try_take(share):
                    raise ServiceError(
                        Reason.OVERLOADED,
                        "the pixel budget is full; retry later",
                        retry_after_s=self._retry_after_s,
                    )
                grant.held[budget] = share
            self._admitted = True
            yield grant
        finally:
            grant.shrink_to(0)
