"""The service's view of the zygote and of the worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from imagesearch_services.embedding.cage.protocol import (
    FORK,
    MAX_MESSAGE_BYTES,
    MEMORY_BYTES,
    PIXELS_AT,
    packet_pair,
    unpack,
)

MODULE = "imagesearch_services.embedding.cage.zygote"
FORK_TIMEOUT_S = 3.0
"""Time after which a zygote that forks no worker is replaced, in seconds."""
START_TIMEOUT_S = 20.0
"""The same for a zygote that has forked no worker yet. It starts in 0.3 s of processor time."""
KEPT_BYTES = 8 * 1024 * 1024
"""Shared memory that a worker keeps for its next picture, in bytes."""
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""Seals of the shared memory: a worker that could shrink it would make this process crash."""
STATE_FIELD = 0
"""Position of the state in /proc/PID/stat, after the name of the program (proc(5))."""


class ProcessLostError(Exception):
    """A worker or the zygote has ended, or could not be started."""


@dataclass(eq=False)
class WorkerProcess:
    """A running worker."""

    pid: int
    pid_descriptor: int
    connection: socket.socket
    memory: mmap.mmap
    ended: asyncio.Future[int | None]
    """Exit status, negative for a signal; None if it is not known."""
    is_used_up: bool = False
    """Whether the worker must not take another task."""
    nice: int = 0
    """Priority of the process, see nice(2)."""
    tasks: int = 0
    """Number of tasks that the worker has done."""

    def cpu_s(self) -> float:
        """Return the processor time that the worker has used, in seconds."""
        with contextlib.suppress(OSError):
            # The clock of another process: clock_getcpuclockid(3) computes the same number.
            return time.clock_gettime(~self.pid << 3 | 2)
        return 0.0

    def is_stopped(self) -> bool:
        """Return whether a signal or a debugger has stopped the process."""
        with contextlib.suppress(OSError, IndexError):
            stat = Path(f"/proc/{self.pid}/stat").read_text()
            return stat.rpartition(")")[2].split()[STATE_FIELD] in {"T", "t"}
        return False

    def lower_priority(self, nice: int) -> None:
        """Lower the priority to a value of nice(2); it can't be raised again."""
        if nice > self.nice:
            self.nice = nice
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self.pid, nice)

    def free_memory(self, used_bytes: int) -> None:
        """Give shared memory back to the operating system, beyond what the next picture needs."""
        if used_bytes > KEPT_BYTES:
            self.memory.madvise(mmap.MADV_REMOVE, PIXELS_AT, MEMORY_BYTES - PIXELS_AT)

    def close(self) -> None:
        """Kill the process and release everything that belongs to it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pid_descriptor, signal.SIGKILL)
        os.close(self.pid_descriptor)
        self.connection.close()
        self.memory.close()


@dataclass(frozen=True, slots=True)
class _Start:
    """The answer of the zygote."""

    pid: int
    pid_descriptor: int
    ended: asyncio.Future[int | None]


class Zygote:
    """Starts the zygote when the first worker is needed, and again when it has ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._timeout_s = START_TIMEOUT_S
        self._starting: deque[asyncio.Future[_Start]] = deque()
        self._ended: dict[int, asyncio.Future[int | None]] = {}

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def fork(self) -> WorkerProcess:
        """Start a worker.

        Raises:
            ProcessLostError: the zygote has ended or does not answer.
        """
        control = self._control or self._start()
        started: asyncio.Future[_Start] = asyncio.get_running_loop().create_future()
        connection, theirs = packet_pair()
        memory_fd = os.memfd_create("picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(memory_fd, MEMORY_BYTES)
            fcntl.fcntl(memory_fd, fcntl.F_ADD_SEALS, SEALS)
            memory = mmap.mmap(memory_fd, MEMORY_BYTES)
            socket.send_fds(control, [FORK], [theirs.fileno(), memory_fd])
            self._starting.append(started)
            async with asyncio.timeout(self._timeout_s):
                start = await started
        except (OSError, TimeoutError) as error:
            connection.close()
            if control is self._control:
                self.close()
            raise ProcessLostError("the zygote does not answer") from error
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(memory_fd)
            theirs.close()
        connection.setblocking(False)
        return WorkerProcess(start.pid, start.pid_descriptor, connection, memory, start.ended)

    def close(self) -> None:
        """Kill the zygote, and with it all workers."""
        if self._process is None or self._control is None:
            return
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._process.kill()
        self._process.wait()
        self._process = self._control = None
        for started in self._starting:
            if not started.done():
                started.set_exception(ProcessLostError("the zygote has ended"))
        self._starting.clear()
        for ended in self._ended.values():
            if not ended.done():
                ended.set_result(None)
        self._ended.clear()

    def _start(self) -> socket.socket:
        control, theirs = packet_pair()
        try:
            self._process = subprocess.Popen(  # noqa: S603  # this program
                [sys.executable, "-m", MODULE, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        finally:
            theirs.close()
        control.setblocking(False)
        self._control = control
        self._timeout_s = START_TIMEOUT_S
        asyncio.get_running_loop().add_reader(control, self._receive, control)
        return control

    def _receive(self, control: socket.socket) -> None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 1)
        except BlockingIOError:
            return
        except OSError:
            packet, descriptors = b"", []
        if not packet:
            self.close()
            return
        message = unpack(packet)
        if "started" in message:
            start = _Start(
                message["started"], descriptors[0], asyncio.get_running_loop().create_future()
            )
            self._ended[start.pid] = start.ended
            self._timeout_s = FORK_TIMEOUT_S
            waiting = self._starting.popleft()
            if waiting.done():  # the caller was cancelled: the worker ends without its socket
                os.close(start.pid_descriptor)
            else:
                waiting.set_result(start)
        elif message["ended"] in self._ended:
            self._ended.pop(message["ended"]).set_result(message["status"])
