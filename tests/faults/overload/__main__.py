"""Offer the suite several times its capacity and measure what happens to the calls.

    python -m tests.faults.overload --seconds 600 --times 4 --output overload.jsonl

Starts a suite with a few thousand stored images. A closed loop with rising concurrency finds the
capacity: the most calls of the mix that are answered per second; at the lowest concurrency that
reaches it, the 99th percentile of the duration is measured. Then an open loop sends calls at random
times at several times that rate. Each result is a JSON line, written as soon as it is known.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from imagesearch.gateway.v1 import image_pb2, library_pb2
from imagesearch.gateway.v1 import image_search_service_pb2_grpc as gateway_grpc
from imagesearch.type.v1 import library_type_pb2, picture_pb2
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.faults.overload.driver import Driver, Outcome
from tests.faults.overload.figures import summary, verdict
from tests.faults.overload.traffic import CALLERS, Corpus, endless, prepare, read_corpus
from tests.faults.process_samples import folder_mib, sample
from tests.triton_server import prepared_models

DEFAULT_PICTURES = Path(__file__).parents[3].parent / "shared" / "data" / "garments"
CONCURRENCIES = (1, 2, 4, 8, 16, 32)
NEARLY = 0.95
"""A concurrency reaches the capacity if it is answered this share of the best rate."""
SAMPLES = 20
"""Number of samples of memory and open files during the overload."""
TOKENS = {caller: f"token-of-{caller}" for caller in CALLERS}


def main() -> None:
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the suite is stopped
    corpus = read_corpus(options.pictures, options.originals)
    models_dir = prepared_models()
    with tempfile.TemporaryDirectory(prefix="imagesearch-overload-") as folder:
        suite = Suite.start(
            SuiteSettings(
                port=free_ports(1)[0],
                data_dir=Path(folder),
                models_dir=models_dir,
                environment={"IMAGESEARCH_GATEWAY_TOKENS": ",".join(TOKENS.values())},
            )
        )
        try:
            library = fill(suite, corpus, options.stored)
            asyncio.run(_Run(suite, options).measure(library, corpus))
        finally:
            suite.stop()


def fill(suite: Suite, corpus: Corpus, stored: int) -> str:
    """Create a library: the originals of the queries, then their copies under other ids."""
    token = (("authorization", f"Bearer {next(iter(TOKENS.values()))}"),)
    with grpc.insecure_channel(suite.target) as channel:
        gateway = gateway_grpc.ImageSearchServiceStub(channel)
        library = gateway.CreateLibrary(
            library_pb2.CreateLibraryRequest(
                library_id="overload",
                library=library_pb2.Library(type=library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE),
            ),
            metadata=token,
        ).name
        contents = [*corpus.stored, *corpus.to_add]
        for first in range(0, stored, 32):
            answer = gateway.BatchAddImages(
                image_pb2.BatchAddImagesRequest(
                    parent=library,
                    requests=[
                        image_pb2.AddImageRequest(
                            image_id=f"stored-{number}",
                            image=picture_pb2.ImageContent(
                                content=contents[number % len(contents)]
                            ),
                        )
                        for number in range(first, min(stored, first + 32))
                    ],
                ),
                metadata=token,
            )
            failed = [result.error for result in answer.results if result.HasField("error")]
            if failed:
                sys.exit(f"adding failed: {failed[0]}")
    return str(library)


class _Run:
    """One run of the command, and its results."""

    def __init__(self, suite: Suite, options: argparse.Namespace) -> None:
        self._suite = suite
        self._options = options

    async def measure(self, library: str, corpus: Corpus) -> None:
        calls = endless(prepare(library, corpus), self._options.seed)
        async with Driver(self._suite.target, TOKENS) as driver:
            self._driver, self._calls = driver, calls
            self._held("before")
            await self._closed("warm-up", 4, 5)
            rates = {}
            for level in CONCURRENCIES:
                figures = await self._closed("rising", level, self._options.step_seconds)
                rates[level] = figures["admitted_per_s"]
            best = max(rates.values())
            concurrency = min(level for level, rate in rates.items() if rate >= NEARLY * best)
            at_capacity = await self._closed(
                "capacity", concurrency, self._options.capacity_seconds
            )
            overload = await self._overload(at_capacity["admitted_per_s"] * self._options.times)
            self._write({"phase": "verdict", **verdict(at_capacity, overload)})
            await self._closed("after", concurrency, self._options.step_seconds)
            self._held("after")

    async def _closed(self, phase: str, concurrency: int, seconds: float) -> dict[str, Any]:
        """Run a closed loop and return its figures."""
        outcomes: list[Outcome] = []
        began_s = time.monotonic()
        await self._driver.closed_loop(self._calls, concurrency, seconds, outcomes.append)
        figures = summary(outcomes, time.monotonic() - began_s)
        self._write({"phase": phase, "concurrency": concurrency, **figures})
        return figures

    async def _overload(self, per_s: float) -> dict[str, Any]:
        outcomes: list[Outcome] = []
        began_s = time.monotonic()
        watch = asyncio.create_task(self._watch(outcomes))
        try:
            await self._driver.open_loop(self._calls, per_s, self._options.seconds, outcomes.append)
        finally:
            watch.cancel()
        figures = summary(outcomes, time.monotonic() - began_s)
        self._write({"phase": "overload", "sent_per_s": round(per_s, 2), **figures})
        return figures

    async def _watch(self, outcomes: Sequence[Outcome]) -> None:
        """Write interim results: what the processes hold, and the calls since the last time."""
        interval_s, seen = self._options.seconds / SAMPLES, 0
        while True:
            await asyncio.sleep(interval_s)
            latest = outcomes[seen:]
            seen = len(outcomes)
            self._write({"phase": "overload, interim", **summary(latest, interval_s)})
            self._held("overload")

    def _held(self, phase: str) -> None:
        held = {name: held.as_json() for name, held in sample(self._suite).items()}
        data_mib = round(folder_mib(self._suite.settings.data_dir), 1)
        calls = self._driver.in_progress
        self._write({"phase": phase, "held": held, "data_mib": data_mib, "in_progress": calls})

    def _write(self, result: dict[str, Any]) -> None:
        line = json.dumps({"time": time.strftime("%H:%M:%S"), **result})
        print(line, flush=True)  # noqa: T201
        if self._options.output:
            with self._options.output.open("a") as file:
                file.write(line + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="duration of the overload")
    parser.add_argument("--times", type=float, default=4, help="offered rate, in capacities")
    parser.add_argument("--stored", type=int, default=3000, help="stored images")
    parser.add_argument("--originals", type=int, default=200, help="different stored queries")
    parser.add_argument("--step-seconds", type=float, default=15, help="each rising concurrency")
    parser.add_argument("--capacity-seconds", type=float, default=90, help="at the capacity")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pictures", type=Path, default=DEFAULT_PICTURES, help="folder of photos")
    parser.add_argument("--output", type=Path, help="file that the JSON lines are appended to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
