"""A forked process that tries inputs one after another, and its supervision.

The worker writes the index of the input that it tries to shared memory. When it dies, or takes too
much processor time, its parent knows the input, and starts another worker behind it.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import random
import resource
import select
import signal
import struct
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.pictures.mutators import Corpus, mutated
from tests.fuzz.pictures.target import try_picture

INPUTS_PER_WORKER = 10_000
MAX_CPU_S = 2.0
"""Maximum processor time of one input. Inputs have at most 200 KB."""
MAX_RESIDENT_MIB = 1_200
"""Maximum resident memory of a worker: 50 megapixels of 20 bytes, and the libraries."""
MAX_GROWTH_MIB = 48
"""Maximum growth of a worker from its 1,000th to its last input, after a collection."""
POLL_S = 0.05
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


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
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)  # libtiff writes a line for each damage
    outcomes: Counter[str] = Counter()
    settled_mib = 0

    def report(**event: object) -> None:
        os.write(writer, json.dumps(event).encode() + b"\n")

    for index in indexes:
        shared[:] = struct.pack("<q", index)
        name, content, random_ = input_at(seeds, seed, index)
        began_s = time.process_time()
        try:
            outcome = try_picture(content, random_)
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is a finding
            outcome = "exception"
            report(index=index, format=name, signature=signature(error))
        cpu_s = time.process_time() - began_s
        if cpu_s > MAX_CPU_S:
            report(index=index, format=name, signature=f"slow {name}", cpu_s=round(cpu_s, 2))
        outcomes[f"{name} {outcome}"] += 1
        if index - indexes.start == 1_000:  # caches are filled by now
            settled_mib = _resident_mib()
        if not index % 500:
            report(outcomes=dict(outcomes), next=index + 1)
            outcomes.clear()
    growth_mib = _resident_mib() - settled_mib
    if settled_mib and growth_mib > MAX_GROWTH_MIB:
        report(index=indexes.stop, format="", signature="growth", growth_mib=growth_mib)
    report(outcomes=dict(outcomes), next=indexes.stop, peak_mib=_peak_mib())
    os._exit(0)


def signature(error: BaseException) -> str:
    """Return the type of an exception and the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""
    text = str(error) if type(error).__name__ == "WrongAnswerError" else ""
    return f"{type(error).__name__} {place} {text.split(' ')[0]}".strip()


def _supervise(pid: int, reader: int, shared: mmap.mmap, end: int) -> Part:
    part = Part(struct.unpack("<q", shared[:])[0])
    buffer, current, current_cpu_s, killed = b"", -1, 0.0, ""
    while True:
        if select.select([reader], [], [], POLL_S)[0]:
            received = os.read(reader, 1 << 16)
            if not received:
                break
            *lines, buffer = (buffer + received).split(b"\n")
            for line in lines:
                _take(part, json.loads(line))
        index = struct.unpack("<q", shared[:])[0]
        cpu_s, resident_mib = _usage(pid)
        part.peak_mib = max(part.peak_mib, resident_mib)
        if index != current:
            current, current_cpu_s = index, cpu_s
        elif cpu_s - current_cpu_s > 2 * MAX_CPU_S:
            killed = "hang"
        if resident_mib > MAX_RESIDENT_MIB:
            killed = "memory"
        if killed:
            os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if status:
        index = struct.unpack("<q", shared[:])[0]
        kind = killed or f"crash by signal {os.WTERMSIG(status)}"
        part.findings.append({"index": index, "format": "", "signature": kind})
        part.next_index = index + 1
    else:
        part.next_index = end
    return part


def _take(part: Part, event: dict[str, Any]) -> None:
    if "signature" in event:
        part.findings.append(event)
    else:
        part.outcomes.update(event["outcomes"])
        part.next_index = event["next"]
        part.peak_mib = max(part.peak_mib, event.get("peak_mib", 0))


def _usage(pid: int) -> tuple[float, int]:
    """Return processor time in seconds and resident memory in MiB of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0
    cpu_s = (int(fields[11]) + int(fields[12])) / CLOCK_TICKS
    return cpu_s, int(fields[21]) * mmap.PAGESIZE >> 20


def _resident_mib() -> int:
    gc.collect()
    return _usage(os.getpid())[1]


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
