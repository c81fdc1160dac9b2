"""Measure an honest caller beside hostile pictures.

    python -m tests.faults.pictures                 # all kinds, about 20 minutes
    python -m tests.faults.pictures --kind tiff     # the kinds whose name contains "tiff"

Starts the suite and lets one caller search with a small photo, first alone, then beside each
hostile kind, which two callers send in a loop (a search and an addition in turn). Embedding is
started anew for each kind. Prints a Markdown table: the answers to the hostile pictures and how
long they took, the waits of the honest caller, and the peak memory of Embedding with its workers.

The bars: the honest caller waits at most 2 s, and its p99 is at most twice its p99 alone; Embedding
stays below 1.5 GiB; no answer is INTERNAL.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.gateway.v1 import image_search_service_pb2_grpc as service
from imagesearch.type.v1 import library_type_pb2, picture_pb2
from imagesearch_services.common.status import from_status
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.faults.hostile.corpus import kinds
from tests.faults.memory import memory_mib
from tests.pictures import encoded, photo
from tests.triton_server import prepared_models

HOSTILE_CALLERS = 2
DURATION_S = 10.0
"""Minimum duration of each kind; it ends with the answer to the last hostile picture."""
PAUSE_S = 0.02
"""Pause of the honest caller between two searches."""
DEADLINE_S = 60.0
"""Deadline of the calls."""
SAMPLE_S = 0.05
"""Interval of the memory samples."""
MAX_WAIT_MS, MAX_P99_RATIO, MAX_MEMORY_MIB = 2_000, 2.0, 1_536

Stub = service.ImageSearchServiceStub


@dataclass
class Waits:
    """Durations of the calls of one caller, and their answers."""

    durations_ms: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)

    def p99_ms(self) -> float:
        if len(self.durations_ms) < 2:
            return max(self.durations_ms, default=0.0)
        return statistics.quantiles(self.durations_ms, n=100)[-1]

    def median_ms(self) -> float:
        return statistics.median(self.durations_ms) if self.durations_ms else 0.0

    def max_ms(self) -> float:
        return max(self.durations_ms, default=0.0)

    def call(self, method: Callable[..., object], request: object) -> None:
        began_s = time.perf_counter()
        try:
            method(request, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            self.answers[answer_of(error)] += 1
        else:
            self.answers["OK"] += 1
        self.durations_ms.append(1e3 * (time.perf_counter() - began_s))


def answer_of(error: grpc.RpcError) -> str:
    from grpc_status import rpc_status  # noqa: PLC0415

    status = rpc_status.from_call(error)
    known = from_status(status) if status is not None else None
    return error.code().name if known is None else known.reason.value


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="imagesearch-pictures-") as folder:
        suite = Suite.start(
            SuiteSettings(
                port=free_ports(1)[0], data_dir=Path(folder), models_dir=prepared_models()
            )
        )
        try:
            measure(suite, options.kind)
        finally:
            suite.stop()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kind", default="", help="only kinds whose name contains this text")
    return parser.parse_args()


def measure(suite: Suite, wanted: str) -> None:
    with open_stub(suite) as stub:
        library = stub.CreateLibrary(
            library_pb2.CreateLibraryRequest(
                library_id="honest",
                library=library_pb2.Library(type=library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE),
            )
        ).name
        for seed in range(20):
            stub.AddImage(add_request(library, encoded(photo(seed))))
    search_for(suite, library, 2.0)  # warms up
    alone = search_for(suite, library, DURATION_S)
    alone_line = f"p50 {alone.median_ms():.0f} ms, p99 {alone.p99_ms():.0f} ms"
    write(f"The honest caller alone: {alone_line}, maximum {alone.max_ms():.0f} ms.\n")
    columns = ("kind", "size", "answers", "time to answer", "honest p50 / p99 / maximum")
    write("| " + " | ".join((*columns, "Embedding", "within")) + " |")
    write("|---" * 7 + "|")
    for name, content in kinds(wanted):
        restart_embedding(suite)
        search_for(suite, library, 1.0)
        write(f"| {name} | {len(content):,} B " + cells(suite, library, content, alone))


def cells(suite: Suite, library: str, content: bytes, alone: Waits) -> str:
    """Send a hostile picture beside the honest caller; return the other cells of its row."""
    hostile = [Waits() for _ in range(HOSTILE_CALLERS)]
    end_s = time.monotonic() + DURATION_S
    threads = [
        threading.Thread(target=send, args=(suite, library, content, waits, end_s))
        for waits in hostile
    ]
    with peak_memory(suite) as peak_mib:
        for thread in threads:
            thread.start()
        honest = search_for(suite, library, DURATION_S, threads)
        for thread in threads:
            thread.join()
    answers: Counter[str] = sum((waits.answers for waits in hostile), Counter())
    durations_ms = [duration for waits in hostile for duration in waits.durations_ms]
    is_within = (
        honest.max_ms() <= MAX_WAIT_MS
        and honest.p99_ms() <= MAX_P99_RATIO * alone.p99_ms()
        and peak_mib[0] < MAX_MEMORY_MIB
        and not {"INTERNAL", "UNKNOWN"} & {*answers, *honest.answers}
        and set(honest.answers) == {"OK"}
    )
    return " | ".join(
        (
            f"| {listed(answers)}",
            f"{statistics.median(durations_ms):,.0f} to {max(durations_ms):,.0f} ms",
            f"{honest.median_ms():,.0f} / {honest.p99_ms():,.0f} / {honest.max_ms():,.0f} ms"
            + ("" if set(honest.answers) == {"OK"} else f" ({listed(honest.answers)})"),
            f"{peak_mib[0]:,} MiB",
            ("yes" if is_within else "**no**") + " |",
        )
    )


def listed(answers: Counter[str]) -> str:
    return ", ".join(f"{count} × {answer}" for answer, count in answers.most_common())


def send(suite: Suite, library: str, content: bytes, waits: Waits, end_s: float) -> None:
    """Send a hostile picture again and again, at least once."""
    with open_stub(suite) as stub:
        calls = (
            (stub.SearchImages, search_request(library, content)),
            (stub.AddImage, add_request(library, content)),
        )
        number = 0
        while not number or time.monotonic() < end_s:
            waits.call(*calls[number % 2])
            number += 1


def search_for(
    suite: Suite, library: str, seconds: float, beside: list[threading.Thread] | None = None
) -> Waits:
    """Search with a small photo for some time, and as long as the threads run."""
    waits = Waits()
    request = search_request(library, encoded(photo(3)))
    end_s = time.monotonic() + seconds
    with open_stub(suite) as stub:
        while time.monotonic() < end_s or any(thread.is_alive() for thread in beside or ()):
            waits.call(stub.SearchImages, request)
            time.sleep(PAUSE_S)
    return waits


@contextlib.contextmanager
def open_stub(suite: Suite) -> Iterator[Stub]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(suite.target, options=options) as channel:
        yield Stub(channel)


def search_request(library: str, content: bytes) -> search_pb2.SearchImagesRequest:
    image = picture_pb2.ImageContent(content=content)
    return search_pb2.SearchImagesRequest(parent=library, image=image)


def add_request(library: str, content: bytes) -> image_pb2.AddImageRequest:
    image = picture_pb2.ImageContent(content=content)
    return image_pb2.AddImageRequest(parent=library, image=image)


def restart_embedding(suite: Suite) -> None:
    suite.processes["embedding"].stop(1.0)
    suite.launch("embedding")
    for name in ("embedding", "gateway"):
        suite.wait_serving(name)


@contextlib.contextmanager
def peak_memory(suite: Suite) -> Iterator[list[int]]:
    """Sample the memory of Embedding and its workers; the peak in MiB is in the list."""
    peak_mib, is_over = [0], threading.Event()
    pid = suite.processes["embedding"].pid

    def sample() -> None:
        while not is_over.wait(SAMPLE_S):
            peak_mib[0] = max(peak_mib[0], memory_mib(pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak_mib
    finally:
        is_over.set()
        thread.join()


def write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
