"""Measure when health tells that a part of the suite is stopped, and that it works again.

    python -m tests.faults.health

Starts a suite, stops one process after another (SIGSTOP: the connections stay open, and nothing
answers), and continues it when the fault was told. "told" and "recovered" are seconds until the
health of the service, then of the Gateway, changed; a probe that gets no answer within a second
counts as told. "refused" is the time that a call sent right after the stop waited for its error.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.gateway.v1.image_search_service_pb2_grpc import ImageSearchServiceStub as Stub
from imagesearch.type.v1 import library_type_pb2, picture_pb2
from imagesearch_services.common.probe import probe
from imagesearch_services.runner.suite import HOST, Suite, SuiteSettings, free_ports
from tests.faults.libraries import engine_pid as engine_of
from tests.faults.results import table
from tests.pictures import encoded, photo
from tests.triton_server import prepared_models

PROBE_S = 1.0
CALL_S = 60.0
LIMIT_S = 90.0
"""Maximum time to wait for a change of health."""
HELD_S = 1.0
"""Time for which a stopped process stays stopped after all health was told."""


@dataclass(frozen=True)
class Fault:
    """A process to stop, and where health must tell it."""

    name: str
    pid: Callable[[Suite], int]
    service: str
    call: Callable[[Stub], object]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="name of one fault")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        suite = Suite.start(
            SuiteSettings(
                port=free_ports(1)[0], data_dir=Path(folder), models_dir=prepared_models()
            )
        )
        try:
            with grpc.insecure_channel(suite.target) as channel:
                stub = Stub(channel)
                fill(stub)
                rows = [
                    measure(suite, stub, fault)
                    for fault in FAULTS
                    if options.only in {"", fault.name}
                ]
        finally:
            suite.stop()
    columns = ["stopped", "told, s", "told by the Gateway, s", "refused, s"]
    columns += ["recovered, s", "recovered in the Gateway, s", "call works, s"]
    sys.stdout.write(table(rows, columns) + "\n")
    return 0


def fill(stub: Stub) -> None:
    stub.CreateLibrary(
        library_pb2.CreateLibraryRequest(
            library_id="shop",
            library=library_pb2.Library(type=library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE),
        )
    )
    stub.AddImage(image_pb2.AddImageRequest(parent="libraries/shop", image_id="a", image=picture()))


def measure(suite: Suite, stub: Stub, fault: Fault) -> dict[str, object]:
    """Stop and continue a process; return the row of the table."""
    pid = fault.pid(suite)
    os.kill(pid, signal.SIGSTOP)
    started_s = time.monotonic()
    refused: list[float] = []

    def call() -> None:
        try:
            fault.call(stub)
        except grpc.RpcError:
            refused.append(round(time.monotonic() - started_s, 1))

    caller = threading.Thread(target=call)
    caller.start()
    try:
        told = wait_for(suite, (fault.service, "gateway"), started_s, serving=False)
        caller.join()
        time.sleep(HELD_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    continued_s = time.monotonic()
    recovered = wait_for(suite, (fault.service, "gateway"), continued_s, serving=True)
    while True:
        try:
            fault.call(stub)
            break
        except grpc.RpcError:
            time.sleep(0.05)
    return {
        "stopped": fault.name,
        "told, s": told[0],
        "told by the Gateway, s": told[1],
        "refused, s": refused[0] if refused else "answered",
        "recovered, s": recovered[0],
        "recovered in the Gateway, s": recovered[1],
        "call works, s": round(time.monotonic() - continued_s, 1),
    }


def wait_for(
    suite: Suite, services: tuple[str, ...], since_s: float, *, serving: bool
) -> list[float | str]:
    """Return when the health of each service became as expected; "never" after `LIMIT_S`."""
    times: dict[str, float] = {}

    def watch(name: str) -> None:
        target = f"{HOST}:{getattr(suite.ports, name)}"
        while time.monotonic() - since_s < LIMIT_S:
            if (probe(target, "", PROBE_S) == "SERVING") is serving:
                times[name] = round(time.monotonic() - since_s, 1)
                return
            time.sleep(0.1)

    watchers = [threading.Thread(target=watch, args=[name]) for name in set(services)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()
    return [times.get(name, "never") for name in services]


def picture() -> picture_pb2.ImageContent:
    return picture_pb2.ImageContent(content=encoded(photo(1)))


def search(stub: Stub) -> object:
    return stub.SearchImages(
        search_pb2.SearchImagesRequest(parent="libraries/shop", image=picture()), timeout=CALL_S
    )


def read(stub: Stub) -> object:
    request = image_pb2.ListImagesRequest(parent="libraries/shop")
    return stub.ListImages(request, timeout=CALL_S)


def pid_of(name: str) -> Callable[[Suite], int]:
    return lambda suite: suite.processes[name].pid


def engine_pid(suite: Suite) -> int:
    return engine_of(suite.processes["catalog"].pid)


FAULTS = (
    Fault("engine of the Catalog", engine_pid, "catalog", read),
    Fault("Catalog", pid_of("catalog"), "catalog", read),
    Fault("Embedding", pid_of("embedding"), "embedding", search),
    Fault("Triton", pid_of("triton"), "embedding", search),
    Fault("Gateway", pid_of("gateway"), "gateway", read),
)

if __name__ == "__main__":
    sys.exit(main())
