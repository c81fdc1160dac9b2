"""Context of the current call: its request id and its deadline."""

from __future__ import annotations

import re
import time
import uuid
from contextvars import ContextVar

REQUEST_ID_HEADER = "x-request-id"
REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
"""Pattern of the request ids that are accepted from callers."""

_request_id: ContextVar[str] = ContextVar("request_id", default="")
_deadline_s: ContextVar[float | None] = ContextVar("deadline_s", default=None)


def begin_call(request_id: str | None, time_remaining_s: float | None) -> str:
    """Set the context of the current task, and return the request id.

    A call without a valid request id gets a random one.
    """
    chosen = request_id if request_id and REQUEST_ID.fullmatch(request_id) else uuid.uuid4().hex
    _request_id.set(chosen)
    _deadline_s.set(None if time_remaining_s is None else time.monotonic() + time_remaining_s)
    return chosen


def request_id() -> str:
    """Return the id of the current call, or "" outside of a call."""
    return _request_id.get()


def time_remaining_s(default: float) -> float:
    """Return the maximum duration of an outgoing call, in seconds.

    This is the remaining time of the current call, at most `default`.
    """
    deadline_s = _deadline_s.get()
    if deadline_s is None:
        return default
    return min(default, max(0.0, deadline_s - time.monotonic()))
