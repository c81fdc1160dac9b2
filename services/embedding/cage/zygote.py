"""The process that forks the workers: `python -m imagesearch_services.embedding.cage.zygote FD`.

It has a single thread and has imported all that decoding needs, so that a fork is safe and takes a
few milliseconds, and the workers share their memory pages. FD is its end of the control socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import mmap
import os
import selectors
import signal
import socket
import sys

from PIL import AvifImagePlugin

from imagesearch_services.embedding.cage.confinement import PR_SET_PDEATHSIG, confine
from imagesearch_services.embedding.cage.protocol import FORK, MEMORY_BYTES, pack
from imagesearch_services.embedding.cage.worker import work
from imagesearch_services.embedding.memory import keep_freed_memory
from imagesearch_services.embedding.pictures.limits import MAX_DECODING_BYTES

IMPORTED_LATE = ("PIL.ImageCms", "PIL.MpoImagePlugin", "encodings.idna", "tracemalloc")
"""Modules that Pillow and Python import when they need them; a worker can't open their files."""

WORKER_FD = 3
"""Descriptor of a worker's socket; it has no other one beyond the standard streams."""


class Zygote:
    """Forks workers, and reports their end."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until the service closes the control socket."""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._report(key.fd, key.data)
                elif not self._serve():
                    return

    def _serve(self) -> bool:
        """Fork a worker. Returns False at the end of the control socket."""
        request, descriptors, _, _ = socket.recv_fds(self._control, len(FORK), 2)
        if request != FORK:
            return False
        parent_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become_worker(parent_pid, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        pid_descriptor = os.pidfd_open(pid)
        self._selector.register(pid_descriptor, selectors.EVENT_READ, pid)
        socket.send_fds(self._control, [pack({"started": pid})], [pid_descriptor])
        return True

    def _report(self, pid_descriptor: int, pid: int) -> None:
        self._selector.unregister(pid_descriptor)
        os.close(pid_descriptor)
        _, status = os.waitpid(pid, 0)
        self._control.send(pack({"ended": pid, "status": os.waitstatus_to_exitcode(status)}))


def _become_worker(parent_pid: int, connection_fd: int, memory_fd: int) -> None:
    """Turn this forked process into a worker; never returns."""
    status = 1
    try:
        memory = mmap.mmap(memory_fd, MEMORY_BYTES)
        kept = os.dup2(os.dup(connection_fd), WORKER_FD, inheritable=False)
        os.closerange(WORKER_FD + 1, os.sysconf("SC_OPEN_MAX"))
        limits = confine(parent_pid=parent_pid, max_task_bytes=MAX_DECODING_BYTES)
        work(socket.socket(fileno=kept), memory, limits)
        status = 0
    except BaseException:  # noqa: BLE001  # nothing of the zygote may run in the worker
        status = 1
    finally:
        os._exit(status)


def _leave_standard_streams() -> None:
    """Connect the standard streams to nothing, since decoders of damaged files write to them."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM):  # the service ends the zygote
        signal.signal(number, signal.SIG_IGN)
    for name in IMPORTED_LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # Threads could not be started in a worker; pictures are decoded in parallel by processes.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    _leave_standard_streams()
    keep_freed_memory()
    gc.collect()
    gc.freeze()  # keeps the pages of the objects shared with the workers
    Zygote(control).run()


if __name__ == "__main__":
    main()
