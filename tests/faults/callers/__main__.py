"""Show what the Gateway holds for hostile callers, and how long an honest caller waits beside them.

    python -m tests.faults.callers                       # the code of this checkout
    python -m tests.faults.callers --checkout FOLDER     # services of another checkout
    python -m tests.faults.callers --only unread         # attacks whose name has the word

A Gateway and a Catalog run without models. For each attack, a new Gateway is started. The honest
caller has another token and reads a library 20 times a second.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import grpc

from imagesearch.client import Client, ImageSearchError
from tests.faults.callers.attacks import ATTACKS, Attack
from tests.faults.callers.services import (
    HONEST,
    LIBRARY,
    Gateway,
    running_catalog,
    running_gateway,
)

HERE = Path(__file__).resolve().parents[3]
HOLD_S = 4.0
"""Time for which an attack is observed after its last byte, in seconds."""
INTERVAL_S = 0.05
COLUMNS = (
    "attack",
    "Gateway MiB before",
    "peak",
    "after",
    "honest p99 ms alone",
    "beside",
    "honest calls refused",
    "honest FindDuplicates",
    "answers",
)


class HonestCaller:
    """Reads a library again and again in a thread; notes times and errors, and the memory."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.latencies_ms: list[float] = []
        self.errors: list[str] = []
        self.peak_mib = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with Client(self._gateway.target, token=HONEST, timeout_s=10) as client:
            while not self._stopping.wait(INTERVAL_S):
                self.peak_mib = max(self.peak_mib, self._gateway.rss_mib())
                start_s = time.perf_counter()
                try:
                    client.get_library(name=f"libraries/{LIBRARY}")
                except ImageSearchError as error:
                    self.errors.append(error.reason or error.code.name)
                else:
                    self.latencies_ms.append((time.perf_counter() - start_s) * 1e3)

    def p99_ms(self) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[len(ordered) * 99 // 100] if ordered else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkout", type=Path, default=HERE)
    parser.add_argument("--only", default="", help="word in the names of the attacks to run")
    options = parser.parse_args()
    _allow_files()
    _print(COLUMNS)
    _print(["---"] * len(COLUMNS))
    with (
        tempfile.TemporaryDirectory(prefix="imagesearch-callers-") as folder,
        running_catalog(Path(folder), options.checkout) as catalog,
    ):
        for name in ATTACKS:
            if options.only in name:
                with running_gateway(catalog, options.checkout) as gateway:
                    _print(_measure(name, gateway))


def _measure(name: str, gateway: Gateway) -> list[str]:
    with HonestCaller(gateway) as alone:
        time.sleep(2)
    before_mib = gateway.rss_mib()
    with ExitStack() as stack:
        state = Attack(gateway.target, stack)
        with HonestCaller(gateway) as beside:
            with contextlib.suppress(OSError):
                ATTACKS[name](state)
            end_s = time.monotonic() + HOLD_S
            while time.monotonic() < end_s:
                state.poll()
                time.sleep(0.05)
        duplicates = _find_duplicates(gateway)
        answers = ", ".join(f"{count} × {kind}" for kind, count in state.answers().items())
    time.sleep(1)
    return [
        name,
        f"{before_mib:.0f}",
        f"{beside.peak_mib:.0f}",
        f"{gateway.rss_mib():.0f}",
        f"{alone.p99_ms():.1f}",
        f"{beside.p99_ms():.1f}",
        f"{len(beside.errors)} of {len(beside.errors) + len(beside.latencies_ms)}",
        duplicates,
        answers,
    ]


def _find_duplicates(gateway: Gateway) -> str:
    """Return whether an honest caller can start FindDuplicates."""
    with Client(gateway.target, token=HONEST, timeout_s=20) as client:
        try:
            next(iter(client.find_duplicates(parent=f"libraries/{LIBRARY}")))
        except (ImageSearchError, grpc.RpcError) as error:
            return str(getattr(error, "reason", "") or error)
    return "served"


def _print(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)  # noqa: T201


def _allow_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
