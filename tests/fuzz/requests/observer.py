"""Observes the processes of the suite while it is fuzzed: health, memory and logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imagesearch_services.runner.suite import Suite
from tests.faults.memory import memory_mib

SERVICES = ("catalog", "embedding", "gateway")
MAX_GROWTH_MIB = 100
MAX_GROWTH_SHARE = 0.15
"""Maximum growth of a process from the middle to the end of a run: both bounds must be passed."""
EXPECTED = (b"ExecuteBatchError raised in core", b'"COLLECTION_DAMAGED"')
"""Errors in logs that calls may cause: a caller that is gone before the answer (logged by gRPC),
and a library that is deleted during a call, whose answer is LIBRARY_CHANGED."""
MAX_LOG_BYTES = 20_000_000


class Observer:
    """Health, memory and logs of a suite."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._read_to = dict.fromkeys(SERVICES, 0)
        self._memory: list[dict[str, int]] = []

    def problems(self) -> Iterator[tuple[str, bytes]]:
        """Yield what went wrong since the last call, and the line of the log that says so.

        Services that ended are started again.
        """
        for service in SERVICES:
            yield from self._errors(service)
            if not self._suite.processes[service].is_alive():
                yield f"{service} ended", self._suite.processes[service].log_tail().encode()
                self._suite.launch(service)
                self._suite.wait_serving(service)
            elif not self._suite.is_serving(service):
                yield f"{service} does not report SERVING", b""

    def sample_memory(self) -> dict[str, int]:
        """Return the memory of each service with its child processes, in MiB."""
        sample = {service: memory_mib(self._suite.processes[service].pid) for service in SERVICES}
        self._memory.append(sample)
        return sample

    def growth(self) -> Iterator[str]:
        """Yield the services whose memory grew from the middle of the run to its end."""
        half = len(self._memory) // 2
        for service in SERVICES:
            values = [sample[service] for sample in self._memory]
            middle, end = (
                max(values[half // 2 : half], default=0),
                max(values[-half // 2 :], default=0),
            )
            if middle and end - middle > max(MAX_GROWTH_MIB, MAX_GROWTH_SHARE * middle):
                yield f"{service} grew from {middle} to {end} MiB"

    def _errors(self, service: str) -> Iterator[tuple[str, bytes]]:
        """Yield the kinds of new unexpected errors in a log; a long log starts anew."""
        file = Path(self._suite.processes[service].log_file)
        with file.open("rb") as log:
            log.seek(self._read_to[service])
            lines = log.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        self._read_to[service] += sum(map(len, lines))
        if self._read_to[service] > MAX_LOG_BYTES:
            with file.open("r+b") as log:
                log.truncate(0)
            self._read_to[service] = 0
        yield from {text: line for line in lines if (text := unexpected(service, line))}.items()


def unexpected(service: str, line: bytes) -> str:
    """Return the kind of an error in a log that no call may cause, or ""."""
    if b'"level": "error"' not in line or any(text in line for text in EXPECTED):
        return ""
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        return f"{service} log: {line[:80]!r}"
    title = str(event.get("event")).splitlines()[0]
    text = f"{service} log: {title} {event.get('method', '')}"
    for error in event.get("exception", ())[-1:]:
        frames = error.get("frames", ())
        place = f"{Path(frames[-1]['filename']).name}:{frames[-1]['name']}" if frames else ""
        text += f" {error.get('exc_type')} {place}"
    return text
