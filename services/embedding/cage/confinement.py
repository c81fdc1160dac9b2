"""Takes from a worker process what decoding does not need, and limits what it may use."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
"""Options of prctl(2)."""
NOBODY = 65534
"""User and group of the workers if the service runs as root."""
SLACK_BYTES = 96 * 1024 * 1024
"""Address space for what a task needs beside its pixels: copies of the file, metadata, strips."""
PAGE_BYTES = resource.getpagesize()


def confine(*, parent_pid: int, max_task_bytes: int) -> TaskLimits:
    """Confine this process for the rest of its life.

    It dies with its parent. It can open no file and no socket, start no process, write no file, and
    gain no privilege.

    Args:
        parent_pid: process that must be alive.
        max_task_bytes: upper bound of the memory of a task.

    Returns:
        The limits to set for each task.
    """
    base_bytes = _address_space_bytes()
    hard_bytes = base_bytes + max_task_bytes + 2 * SLACK_BYTES
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for option, value in (
        (PR_SET_PDEATHSIG, signal.SIGKILL),  # after the change of user, which clears it
        (PR_SET_DUMPABLE, 0),
        (PR_SET_NO_NEW_PRIVS, 1),
    ):
        if prctl(option, int(value), 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl option {option}")
    if os.getppid() != parent_pid:
        os._exit(1)
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_AS, hard_bytes),
    ):
        resource.setrlimit(limit, (value, value))
    return TaskLimits(base_bytes, hard_bytes)


def _address_space_bytes() -> int:
    """Return the size of this process's address space, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * PAGE_BYTES


class TaskLimits:
    """Limits of processor time and address space, which start anew with each task."""

    def __init__(self, base_bytes: int, hard_bytes: int) -> None:
        """Prepare the limits.

        Args:
            base_bytes: address space of the process without a task.
            hard_bytes: maximum address space, which no task may raise.
        """
        self._base_bytes = base_bytes
        self._hard_bytes = hard_bytes

    def begin(self, *, cpu_s: float, memory_bytes: int) -> None:
        """Limit a task. When its processor time is used up, the process ends by SIGPROF."""
        allowed = self._base_bytes + SLACK_BYTES + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (min(allowed, self._hard_bytes), self._hard_bytes))
        signal.setitimer(signal.ITIMER_PROF, cpu_s)

    def end(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (self._hard_bytes, self._hard_bytes))
