"""Lets a call whose picture takes long give its turn to the next call.

What finds out that work is slow does not know the queue that the call came through: the call
carries the function that gives its turn away, for itself and for all tasks that it starts.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

_give_up: ContextVar[Callable[[], None] | None] = ContextVar("give_up", default=None)


def on_slow_work(give_up: Callable[[], None] | None) -> None:
    """Set the function that gives the turn of this call away; it may be called several times."""
    _give_up.set(give_up)


def give_up_turn() -> None:
    """Give the turn of this call to the next one, although the call goes on."""
    if (give_up := _give_up.get()) is not None:
        give_up()
