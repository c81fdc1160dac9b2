"""Makes a failing input smaller while it fails in the same way."""

from __future__ import annotations

import os
import random
import select
import signal
import time

from tests.fuzz.pictures.target import Target
from tests.fuzz.pictures.worker import signature

MAX_DURATION_S = 10.0
"""Maximum time that is spent on one input."""


def smallest(content: bytes, failure: str) -> bytes:
    """Return the input without the blocks that the failure does not need."""
    deadline_s = time.monotonic() + MAX_DURATION_S
    if failure == "growth" or not _fails(content, failure):
        return content
    block = len(content) // 2
    while block and time.monotonic() < deadline_s:
        at = 0
        while at < len(content) and time.monotonic() < deadline_s:
            candidate = content[:at] + content[at + block :]
            if _fails(candidate, failure):
                content = candidate
            else:
                at += block
        block //= 2
    return content


def _fails(content: bytes, failure: str) -> bool:
    """Try an input in a process of its own; return whether it fails in this way."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            target = Target(os.getppid())
            result = target.try_picture(content, random.Random(0))  # noqa: S311  # reproducible
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is the result
            result = signature(error)
        os.write(writer, result.encode())
        os._exit(0)
    os.close(writer)
    ready = select.select([reader], [], [], MAX_DURATION_S)[0]
    if not ready:
        os.kill(pid, signal.SIGKILL)
    result = os.read(reader, 1000).decode() if ready else ""
    os.close(reader)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        result = f"crash by signal {os.WTERMSIG(status)}" if ready else "hang"
    return result == failure
