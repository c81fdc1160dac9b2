"""Compare ways to run the embedded engine in a child process.

    python -m tests.benchmarks.engine_process [--candidates ours,pool,…]

The candidates `loky` and `pebble` need the packages of these names. Candidates alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from imagesearch_services.catalog.model import VectorSpace
from imagesearch_services.catalog.storage import Fields, Point, Search
from tests.benchmarks.engine_process.candidates import CANDIDATES
from tests.benchmarks.engine_process.engine import FOLDER

MODULE = "tests.benchmarks.engine_process"
ROUNDS = 4
POINTS = 1000
DIMENSIONS = 512
CALLERS = 8
ORPHAN_WAIT_S = 4.0


async def time_ms(calls: Iterable[Callable[[], Awaitable[Any]]]) -> list[float]:
    times: list[float] = []
    for call in calls:
        started = time.perf_counter()
        await call()
        times.append((time.perf_counter() - started) * 1e3)
    return times


async def measure(name: str, calls: int) -> dict[str, Any]:
    """Measure a candidate in this process."""
    vectors = np.random.default_rng(0).standard_normal((POINTS, DIMENSIONS)).astype("<f4")
    points = [
        Point(number.to_bytes(16, "big"), {"a": vector.tobytes()}, {"features": "x" * 10_000})
        for number, vector in enumerate(vectors)
    ]
    started = time.perf_counter()
    run = CANDIDATES[name]()
    await run("ping")
    start_ms = (time.perf_counter() - started) * 1e3
    await run("create_collection", "c", (VectorSpace("a", DIMENSIONS),), {})
    for first in range(0, POINTS, 100):
        await run("upsert", "c", points[first : first + 100])
    searches = [
        Search(space="a", vectors=(vectors[n % POINTS].tobytes(),), limit=10) for n in range(calls)
    ]
    uids = [point.uid for point in points[:100]]
    figures: dict[str, Any] = {
        "start_ms": [start_ms],
        "empty_call_ms": await time_ms([lambda: run("ping")] * calls),
        "search_ms": await time_ms(
            [lambda search=search: run("search", "c", search) for search in searches]
        ),
        "read_1_mb_ms": await time_ms([lambda: run("retrieve", "c", uids, Fields.ALL, True)] * 20),
    }
    started = time.perf_counter()
    pings = [time_ms([lambda: run("ping")] * (calls // CALLERS)) for _ in range(CALLERS)]
    await asyncio.gather(*pings)
    figures["calls_per_s"] = [calls / (time.perf_counter() - started)]
    figures["children_mib"] = children_mib()
    return figures


def children_mib() -> list[int]:
    """Return the proportional set size of each child process, MiB."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    sizes: list[int] = []
    for child in children:
        lines = Path(f"/proc/{child}/smaps_rollup").read_text(encoding="ascii").splitlines()
        sizes.append(
            next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) // 1024
        )
    return sizes


async def hold(name: str) -> None:
    """Start a candidate, print the process id of its engine, and wait to be killed."""
    run = CANDIDATES[name]()
    sys.stdout.write(f"{await run('pid')}\n")
    sys.stdout.flush()
    await asyncio.sleep(60)


def exit_after_parent_s(name: str) -> float | None:
    """Kill the parent of an engine; return the seconds until the engine exits, None if it stays."""
    command = [sys.executable, "-m", MODULE, "--hold", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        started = time.monotonic()
        while time.monotonic() - started < ORPHAN_WAIT_S:
            if not is_running(pid):
                return round(time.monotonic() - started, 2)
            time.sleep(0.01)
        os.kill(pid, 9)
        return None


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    figures: dict[str, Any] = {"children_mib": rounds[0]["children_mib"]}
    for name in [name for name in rounds[0] if name not in figures]:
        values = [value for figures_of_round in rounds for value in figures_of_round[name]]
        figures[name] = [round(float(np.percentile(values, rank)), 3) for rank in (50, 95)]
    return figures


def child(name: str, calls: int) -> dict[str, Any]:
    """Measure a candidate in a new process, so that it does not affect the next candidate."""
    command = [sys.executable, "-m", MODULE, "--measure", name, "--calls", str(calls)]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {FOLDER: folder}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            assert process.stdout is not None
            figures: dict[str, Any] = json.loads(process.stdout.readline())
            os.killpg(process.pid, 9)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--candidates", default="ours,connection,pipe,manager,pool,grpc")
    parser.add_argument("--calls", type=int, default=2000)
    for internal in ("--measure", "--hold"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hold:
        asyncio.run(hold(options.hold))
    elif options.measure:

        async def print_figures() -> None:
            figures = await measure(options.measure, options.calls)
            sys.stdout.write(json.dumps(figures) + "\n")
            sys.stdout.flush()
            await asyncio.sleep(60)  # killed by then

        asyncio.run(print_figures())
    else:
        names = options.candidates.split(",")
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(ROUNDS):
            for name in names:
                rounds[name].append(child(name, options.calls // ROUNDS))
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                os.environ[FOLDER] = folder
                figures = summary(rounds[name]) | {"exit_s": exit_after_parent_s(name)}
            sys.stdout.write(json.dumps({"candidate": name, **figures}) + "\n")


if __name__ == "__main__":
    main()
