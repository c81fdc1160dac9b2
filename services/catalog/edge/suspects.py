"""Collections on which the engine process was lost: refused until the Catalog restarts.

A changed byte in a file can make the engine compute for minutes (a length of 2^40 instead of 40) or
crash it. The engine runs one command at a time, so one such collection would stop all others.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from typing import NamedTuple

from imagesearch_services.catalog.edge.layout import UID
from imagesearch_services.catalog.storage import CollectionDamagedError
from imagesearch_services.common.logs import logger

CRASHES = 2
"""Crashes on a collection within `CRASH_WINDOW_S` that mark it. One may have another cause."""

CRASH_WINDOW_S = 300.0
"""Time for which a crash counts, in seconds."""

UNOPENED = frozenset({"drop_collection", "set_aside", "bring_back", "write_record"})
"""Commands that open no shard: a marked collection can be deleted and moved."""


class Cause(enum.Enum):
    """Why an engine process ended during a command."""

    OVERRUN = "it used too much processor time"
    """The Catalog killed it. Marks the collection at once."""
    CRASH = "the engine crashed"
    KILLED = "the engine was killed"
    """From outside, by the kernel for lack of memory or by an operator. Counts until a command on
    the collection succeeds."""


class EngineEnd(NamedTuple):
    """How an engine process ended that had a command on a collection."""

    method: str
    collection: str
    cause: Cause
    status: int | None
    """Exit status; the negative signal number if a signal ended it; None if unknown."""


class Suspects:
    """Counts the engine processes that were lost per collection."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._crashes: dict[str, list[tuple[float, Cause]]] = {}
        self._marked: dict[str, str] = {}

    def is_marked(self, name: str) -> bool:
        return name in self._marked

    def check(self, method: str, name: str) -> None:
        """Refuse a command that would open a marked collection.

        Raises:
            CollectionDamagedError: the collection is marked.
        """
        if name in self._marked and method not in UNOPENED:
            raise CollectionDamagedError(f"{name}: {self._marked[name]}")

    def record(self, end: EngineEnd) -> None:
        """Count the end of an engine process; mark the collection if it is the likely cause."""
        now_s = self._clock()
        recent = [each for each in self._crashes.get(end.collection, []) if each[0] > now_s]
        recent.append((now_s + CRASH_WINDOW_S, end.cause))
        self._crashes[end.collection] = recent
        likely = end.cause is Cause.OVERRUN or len(recent) >= CRASHES
        # Only libraries: nothing works without the metadata, so the next call opens it again.
        marked = likely and UID.match(end.collection) is not None
        if marked:
            self._marked[end.collection] = f"{end.cause.value} (command {end.method})"
        logger().error(
            "engine.collection_marked" if marked else "engine.lost_during_command",
            collection=end.collection,
            method=end.method,
            cause=end.cause.value,
            status=end.status,
            hint="run `imagesearch catalog check`" if likely else None,
        )

    def succeeded(self, name: str) -> None:
        """Forget the kills from outside: the collection can be used."""
        if name in self._crashes:
            crashes = [each for each in self._crashes[name] if each[1] is not Cause.KILLED]
            self._crashes[name] = crashes
            if not crashes:
                del self._crashes[name]

    def forget(self, name: str) -> None:
        """Forget a collection that was deleted or moved."""
        self._marked.pop(name, None)
        self._crashes.pop(name, None)
