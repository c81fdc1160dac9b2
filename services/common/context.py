"""What a call carries along: its request id and what is left of its deadline."""

from __future__ import annotations

import time
import uuid
from contextvars import ContextVar

REQUEST_ID_HEADER = "x-request-id"

_request_id: ContextVar[str] = ContextVar("request_id", default="")
_deadline_s: ContextVar[float | None] = ContextVar("deadline_s", default=None)


def begin_call(request_id: str | None, time_remaining_s: float | None) -> str:
    """Remember what the caller sent for the rest of this task; return the request id."""
    chosen = request_id or uuid.uuid4().hex
    _request_id.set(chosen)
    _deadline_s.set(None if time_remaining_s is None else time.monotonic() + time_remaining_s)
    return chosen


def request_id() -> str:
    """Return the id of the call being served, or "" outside of one."""
    return _request_id.get()


def time_remaining_s(default: float) -> float:
    """Return how many seconds an outgoing call may take: what the caller left us, or `default`.

    Never more than `default`, so that a caller without a deadline can't hold us for ever.
    """
    deadline_s = _deadline_s.get()
    if deadline_s is None:
        return default
    return min(default, max(0.0, deadline_s - time.monotonic()))
