"""Fuzz all RPCs of a running suite.

    python -m tests.fuzz.requests --requests 1000000 --folder /tmp/fuzz/requests

Starts the suite and calls every RPC of its three services with random messages, which use the
names, tokens, vectors and features that earlier answers returned. Each answer must be OK or a
documented error other than INTERNAL, not later than a second after the deadline of the call. The
services stay SERVING, log no unexpected error, and their memory does not grow. Wrong answers are
saved in the folder with their request; the run goes on. A run that was stopped continues its count,
with a new suite.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagesearch_services.runner.suite import HOST, Suite, SuiteSettings, free_ports
from tests.fuzz.journal import Journal
from tests.fuzz.requests.caller import Caller, Finding
from tests.fuzz.requests.methods import methods
from tests.fuzz.requests.observer import SERVICES, Observer
from tests.triton_server import prepared_models

CONCURRENCY = 12
REQUESTS_PER_PART = 2_000


def main() -> None:
    options = arguments()
    journal = Journal(options.folder, seed=options.seed)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the suite is stopped, too
    with running_suite() as suite:
        asyncio.run(fuzz(suite, journal, options.seed, options.requests))
    report(journal)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1, help="of the random choices")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/fuzz/requests"), help="results")  # noqa: S108
    return parser.parse_args()


@contextmanager
def running_suite() -> Iterator[Suite]:
    with tempfile.TemporaryDirectory(prefix="imagesearch-fuzz-") as folder:
        settings = SuiteSettings(
            port=free_ports(1)[0], data_dir=Path(folder), models_dir=prepared_models()
        )
        suite = Suite.start(settings)
        try:
            yield suite
        finally:
            suite.stop()


async def fuzz(suite: Suite, journal: Journal, seed: int, requests: int) -> None:
    caller, observer = Caller(targets(suite), methods()), Observer(suite)
    done = journal.next_index()
    while done < requests:
        began_s = time.monotonic()
        count = min(REQUESTS_PER_PART, requests - done)
        await caller.populate()
        findings = await run_part(caller, seed, done, count)
        for finding in findings:
            details = {"method": finding.method, "seconds": round(finding.seconds, 2)}
            journal.finding(finding.signature, finding.request, {**details, "index": done})
        for problem, line in await asyncio.to_thread(lambda: list(observer.problems())):
            journal.finding(problem, line, {"index": done})
        done += count
        memory_mib = await asyncio.to_thread(observer.sample_memory)
        seconds = time.monotonic() - began_s
        journal.add(
            "part",
            next=done,
            outcomes=caller.statistics.outcomes,
            seconds=round(seconds, 1),
            slowest_s=round(caller.statistics.slowest_s, 2),
            memory_mib=memory_mib,
        )
        caller.statistics.outcomes.clear()
        caller.statistics.slowest_s = 0.0
        sys.stdout.write(
            f"{done:,} requests, {count / seconds:,.0f} /s, {memory_mib} MiB, "
            f"{journal.finding_count()} findings\n"
        )
        sys.stdout.flush()
    for problem in observer.growth():
        journal.finding(problem, b"", {})
    await caller.close()


def targets(suite: Suite) -> dict[str, str]:
    return {service: f"{HOST}:{getattr(suite.ports, service)}" for service in SERVICES}


async def run_part(caller: Caller, seed: int, first: int, count: int) -> list[Finding]:
    """Make `count` calls, several at a time."""
    indexes = iter(range(first, first + count))
    findings: list[Finding] = []

    async def call_in_turn() -> None:
        for index in indexes:
            findings.extend(await caller.try_one(random.Random(f"{seed}:{index}")))  # noqa: S311

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(call_in_turn())
    return findings


def report(journal: Journal) -> None:
    totals = journal.totals()
    for outcome in sorted(totals):
        sys.stdout.write(f"{outcome:<55} {totals[outcome]:>9,}\n")
    sys.stdout.write(f"{sum(totals.values()):,} requests, {journal.finding_count()} findings\n")


if __name__ == "__main__":
    main()
