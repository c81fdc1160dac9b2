"""Whether the engine process makes progress, seen from outside.

The bindings hold Python's global interpreter lock during a call, so no thread of the engine can
answer "I am busy". Linux tells: a process that computes uses processor time, one that is stopped,
deadlocked or waits for a disk that does not answer uses none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

STOPPED = frozenset("Tt")
"""States of a process that SIGSTOP or a debugger stopped (proc(5))."""

STOPPED_S = 1.5
"""Time after which the commands of a stopped process fail, in seconds."""

STUCK_S = 3.0
"""Time without progress after which the commands of any process fail, in seconds. A disk may need
some of it to synchronize a file."""

KILL_S = 20.0
"""Time without progress after which the engine is killed, in seconds."""

POLL_S = 0.5
"""Interval between two readings, in seconds."""

OUTSIDE = STOPPED | {"D"}
"""States whose cause is outside the process: it was stopped, or the disk does not answer."""

COMMAND_S = 30.0
"""Processor time that a command may use, in seconds. Commands use milliseconds; opening a shard
after a crash, which replays 20,000 points, some seconds."""

COMMAND_S_PER_GIB = 60.0
"""Additional processor time of a command per GiB of its collection's files, in seconds: an index of
a field, a flush and a search without an index read all entries."""

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
"""Ticks of the system clock per second."""


class Reading(NamedTuple):
    """What Linux says about a process."""

    state: str
    """One letter; "R" runs, "S" sleeps, "D" waits for a disk, "T" is stopped."""
    processor_ticks: int
    """Processor time that all threads have used, in ticks of the system clock."""


def read_process(pid: int) -> Reading | None:
    """Return the state of a process; None if it has ended or the system has no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The name of the program, in parentheses, may contain spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    return Reading(fields[0], int(fields[11]) + int(fields[12]))


class Progress:
    """Measures for how long a process with an unanswered command has made no progress."""

    def __init__(self, pid: int, read: Callable[[int], Reading | None] = read_process) -> None:
        self._pid = pid
        self._read = read
        self._ticks = 0
        self._answered = 0
        self._idle_s = 0.0
        self._stopped = False
        self._first_ticks = 0
        self.outside = False
        """Whether the process waits for something outside it, by the last reading."""

    @property
    def command_s(self) -> float:
        """Processor time of the oldest unanswered command, in seconds; up to `POLL_S` too low."""
        return (self._ticks - self._first_ticks) / TICKS_PER_S

    @property
    def stuck(self) -> bool:
        """Whether the process can answer no command at present."""
        return self._idle_s >= (STOPPED_S if self._stopped else STUCK_S)

    @property
    def hopeless(self) -> bool:
        """Whether the process should be killed."""
        return self._idle_s >= KILL_S

    def update(self, *, waiting: bool, answered: int, elapsed_s: float) -> None:
        """Read the state of the process.

        Args:
            waiting: whether a command is unanswered.
            answered: number of commands answered since the start.
            elapsed_s: time since the last call. More than twice `POLL_S` counts as that much: this
                process was stopped itself, or was too busy to read an answer.
        """
        reading = self._read(self._pid)
        if reading is None:
            self._stopped, self._idle_s = False, 0.0
            return
        self._stopped = reading.state in STOPPED
        self.outside = reading.state in OUTSIDE
        if not waiting or answered != self._answered:
            self._first_ticks = reading.processor_ticks
        moved = reading.processor_ticks != self._ticks or answered != self._answered
        self._ticks, self._answered = reading.processor_ticks, answered
        if self._stopped or (waiting and not moved):
            self._idle_s += min(elapsed_s, 2 * POLL_S)
        else:
            self._idle_s = 0.0
