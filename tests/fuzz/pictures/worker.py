"""A forked process that tries inputs one after another, and its supervision.

The worker writes the index of the input that it tries to shared memory. When it dies, or takes too
much processor time, its parent knows the input, and starts another worker behind it.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import select
import signal
import statistics
import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.pictures.mutators import Corpus, mutated
from tests.fuzz.pictures.target import Target

INPUTS_PER_WORKER = 10_000
MAX_WALL_S = 60.0
"""Maximum time of one input. The limit of its processor time is that of the cage."""
MAX_RESIDENT_MIB = 1_200
"""Maximum resident memory of a worker: what the cage allows for decoding, and the libraries."""
MAX_GROWTH_MIB = 48
"""Maximum growth of a worker from its 1,000th to its last input."""
SETTLED_INPUTS = 1_000
POLL_S = 0.05


@dataclass
class Part:
    """The results of one worker."""

    next_index: int
    """Index of the first input that was not tried."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Number of inputs by format and outcome."""
    findings: list[dict[str, Any]] = field(default_factory=list)
    peak_mib: int = 0


def input_at(seeds: Corpus, seed: int, index: int) -> tuple[str, bytes, random.Random]:
    """Return the format, the bytes and the remaining randomness of an input, always the same."""
    random_ = random.Random(f"{seed}:{index}")  # noqa: S311  # reproducible
    name, content = mutated(seeds, random_)
    return name, content, random_


def run_part(seeds: Corpus, seed: int, first: int, end: int) -> Part:
    """Try inputs in a forked worker, until `end` or until one kills it."""
    shared = mmap.mmap(-1, 8)
    shared[:] = struct.pack("<q", first)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _run_worker(shared, writer, seeds, seed, range(first, end))
    os.close(writer)
    try:
        return _supervise(pid, reader, shared, end)
    finally:
        os.close(reader)
        shared.close()


def _run_worker(shared: mmap.mmap, writer: int, seeds: Corpus, seed: int, indexes: range) -> None:
    """Try inputs, report them as one line of JSON for each event, and end the process."""
    outcomes: Counter[str] = Counter()

    def report(**event: object) -> None:
        os.write(writer, json.dumps(event).encode() + b"\n")

    try:
        target = Target(os.getppid())
        for index in indexes:
            shared[:] = struct.pack("<q", index)
            name, content, random_ = input_at(seeds, seed, index)
            try:
                outcome = target.try_picture(content, random_)
            except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
                outcome = "exception"
                report(index=index, format=name, signature=signature(error))
            outcomes[f"{name} {outcome}"] += 1
            if not index % 100:
                report(outcomes=dict(outcomes), next=index + 1)
                outcomes.clear()
        report(outcomes=dict(outcomes), next=indexes.stop)
    finally:
        os._exit(0)


def signature(error: BaseException) -> str:
    """Return the type of an exception and the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""
    text = str(error) if type(error).__name__ == "WrongAnswerError" else ""
    return f"{type(error).__name__} {place} {text.split(' ')[0]}".strip()


def _supervise(pid: int, reader: int, shared: mmap.mmap, end: int) -> Part:
    """Collect the results of a worker until it ends; kill it if it hangs or takes too much."""
    part, watch = Part(_index(shared)), _Watch(_index(shared))
    for event in _events(reader, on_poll=lambda: watch.look(pid, _index(shared))):
        if "signature" in event:
            part.findings.append(event)
        else:
            part.outcomes.update(event["outcomes"])
    status, index = os.waitpid(pid, 0)[1], _index(shared)
    part.peak_mib = watch.peak_mib
    if not status:
        part.next_index = end
        part.findings += _growth(watch.sizes_mib, index)
    else:
        part.next_index = index + 1
        if os.WTERMSIG(status) == signal.SIGPROF:
            part.outcomes["any processor time used up"] += 1
        else:
            kind = watch.killed or f"crash by signal {os.WTERMSIG(status)}"
            part.findings.append({"index": index, "format": "", "signature": kind})
    return part


def _index(shared: mmap.mmap) -> int:
    return int(struct.unpack("<q", shared[:])[0])


def _events(reader: int, on_poll: Callable[[], None]) -> Iterator[dict[str, Any]]:
    """Yield what a worker reports until it ends."""
    buffer = b""
    while True:
        if select.select([reader], [], [], POLL_S)[0]:
            received = os.read(reader, 1 << 16)
            if not received:
                return
            *lines, buffer = (buffer + received).split(b"\n")
            yield from map(json.loads, lines)
        on_poll()


class _Watch:
    """Looks at the progress and the memory of a worker."""

    def __init__(self, first: int) -> None:
        self.peak_mib = 0
        self.sizes_mib: list[int] = []
        """Resident memory behind the first inputs."""
        self.killed = ""
        """Why the worker was killed."""
        self._first = first
        self._current = -1
        self._began_s = 0.0

    def look(self, pid: int, index: int) -> None:
        resident_mib = _resident_mib(pid)
        self.peak_mib = max(self.peak_mib, resident_mib)
        if index > self._first + SETTLED_INPUTS:
            self.sizes_mib.append(resident_mib)
        if index != self._current:
            self._current, self._began_s = index, time.monotonic()
        elif time.monotonic() - self._began_s > MAX_WALL_S:
            self.killed = "hang"
        if resident_mib > MAX_RESIDENT_MIB:
            self.killed = "memory"
        if self.killed:
            os.kill(pid, signal.SIGKILL)


def _growth(sizes_mib: list[int], index: int) -> list[dict[str, Any]]:
    count = len(sizes_mib) // 4
    if not count:
        return []
    growth_mib = statistics.median(sizes_mib[-count:]) - statistics.median(sizes_mib[:count])
    if growth_mib <= MAX_GROWTH_MIB:
        return []
    return [{"index": index, "format": "", "signature": "growth", "growth_mib": growth_mib}]


def _resident_mib(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * mmap.PAGESIZE >> 20
    except OSError:
        return 0
