"""Processes in the background that are found again later, and only they are ever stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.05
KILL_TIMEOUT_S = 10.0
LOG_TAIL_LINES = 30


class StartError(Exception):
    """A process did not come up; the message holds the end of its log."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to start."""

    name: str
    """For people and for the log file: "gateway"."""
    arguments: Sequence[str]
    environment: Mapping[str, str]
    """The whole environment."""
    log_file: Path
    """Gets standard output and error, appended."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that was started from here, perhaps by an earlier run."""

    name: str
    pid: int
    started_ticks: int
    """Start time in clock ticks since boot (proc(5), `stat` field 22): with the pid it names one
    process for ever, so that a pid given to somebody else meanwhile is never ours."""
    log_file: str

    def is_alive(self) -> bool:
        return _started_ticks(self.pid) == self.started_ticks

    def signal(self, number: signal.Signals) -> None:
        if self.is_alive():
            os.kill(self.pid, number)

    def stop(self, grace_s: float) -> None:
        """Ask it to end, wait, and end it by force when it has not after `grace_s`."""
        self.signal(signal.SIGTERM)
        if not self._wait_gone(grace_s):
            self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would, and the processes that it started."""
        if self.is_alive():
            os.killpg(self.pid, signal.SIGKILL)
            self._wait_gone(KILL_TIMEOUT_S)

    def log_tail(self) -> str:
        lines = Path(self.log_file).read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def _wait_gone(self, timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while self.is_alive():
            if time.monotonic() > deadline_s:
                return False
            time.sleep(POLL_S)
        return True


def launch(command: Command) -> Process:
    """Start a process in a session of its own, so that it outlives us and our terminal."""
    command.log_file.parent.mkdir(parents=True, exist_ok=True)
    with command.log_file.open("ab") as log:
        child = subprocess.Popen(  # noqa: S603  # our own programs
            command.arguments,
            env=dict(command.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    started_ticks = _started_ticks(child.pid)
    process = Process(
        name=command.name,
        pid=child.pid,
        started_ticks=started_ticks or 0,
        log_file=str(command.log_file),
    )
    if started_ticks is None:
        raise StartError(f"{command.name} ended at once:\n{process.log_tail()}")
    return process


def _started_ticks(pid: int) -> int | None:
    """Return when the process started, or None where it is gone or only waits to be buried."""
    # Not a child of ours, if an earlier run started it.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may itself hold blanks and parentheses.
    fields = stat[stat.rindex(")") + 2 :].split()
    state, started = fields[0], fields[19]
    return None if state in {"Z", "X"} else int(started)
