"""Background processes that a later run can identify and stop."""

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
    """A process did not start. The message contains the end of its log."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """Command line and environment of a process."""

    name: str
    """Name for messages and the log file, for example "gateway"."""
    arguments: Sequence[str]
    environment: Mapping[str, str]
    """All environment variables; the runner's own are not inherited."""
    log_file: Path
    """File that standard output and standard error are appended to."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process that this run or an earlier run started."""

    name: str
    pid: int
    started_ticks: int
    """Start time in clock ticks since boot (proc(5), `stat` field 22). Together with the pid it
    identifies the process, even if the pid is reused."""
    log_file: str

    def is_alive(self) -> bool:
        return _started_ticks(self.pid) == self.started_ticks

    def signal(self, number: signal.Signals) -> None:
        if self.is_alive():
            os.kill(self.pid, number)

    def stop(self, grace_s: float) -> None:
        """Send SIGTERM, wait up to `grace_s` seconds, then kill the process."""
        self.signal(signal.SIGTERM)
        if not self._wait_gone(grace_s):
            self.kill()

    def kill(self) -> None:
        """Kill the process and its process group, as in a crash."""
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
    """Start a process in a new session, so that it outlives this process and its terminal.

    Raises:
        StartError: it ended immediately.
    """
    command.log_file.parent.mkdir(parents=True, exist_ok=True)
    with command.log_file.open("ab") as log:
        child = subprocess.Popen(  # noqa: S603  # programs of this distribution
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
        raise StartError(f"{command.name} ended immediately:\n{process.log_tail()}")
    return process


def _started_ticks(pid: int) -> int | None:
    """Return the start time of a process in clock ticks; None if it ended or is a zombie."""
    # A process that an earlier run started is not a child of this process.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name is in parentheses and may itself contain spaces and parentheses.
    fields = stat[stat.rindex(")") + 2 :].split()
    state, started = fields[0], fields[19]
    return None if state in {"Z", "X"} else int(started)
