"""Makes a failing input smaller while it fails in the same way."""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import time

from tests.fuzz.pictures.target import try_picture
from tests.fuzz.pictures.worker import MAX_CPU_S, signature

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
        resource.setrlimit(resource.RLIMIT_CPU, (int(2 * MAX_CPU_S), int(2 * MAX_CPU_S)))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        began_s = time.process_time()
        try:
            result = try_picture(content, random.Random(0))  # noqa: S311  # reproducible
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is the result
            result = signature(error)
        if time.process_time() - began_s > MAX_CPU_S:
            result = failure if failure.startswith("slow") else "slow"
        os.write(writer, result.encode())
        os._exit(0)
    os.close(writer)
    ready = select.select([reader], [], [], 10 * MAX_CPU_S)[0]
    if not ready:
        os.kill(pid, signal.SIGKILL)
    result = os.read(reader, 1000).decode() if ready else ""
    os.close(reader)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        is_hang = number in {signal.SIGXCPU, signal.SIGKILL}
        return failure == ("hang" if is_hang else f"crash by signal {number}")
    return result == failure
