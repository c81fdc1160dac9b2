"""Kills a Catalog at every failpoint and compares the next one with a model.

    python -m tests.faults.kill

A round arms one failpoint of `services/catalog/failpoints.py`, changes entries and libraries until
the Catalog kills itself there, and checks the next Catalog. Indexes are built and shards flushed
often, so that every failpoint is reached. With `--random`, rounds kill at a random moment instead.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
from pathlib import Path

import grpc.aio

from imagesearch_services.catalog.failpoints import NAMES, VARIABLE
from tests.contract.catalog.support import Catalog, where
from tests.faults.catalog_process import CatalogProcess, StartError
from tests.faults.check import check
from tests.faults.model import REVISION_TAG, Model
from tests.faults.results import Result, run_rounds, table
from tests.faults.workload import working

SETTINGS = {"INDEXING_THRESHOLD": "40", "FLUSH_POINTS": "30"}

FREQUENT = (
    "points.before",
    "points.after_write",
    "commit.",
    "blobs.before_write",
    "blobs.after",
    "put.",
    "request.",
)
"""Beginnings of failpoints that every write reaches, the first ones at the start already."""

CALLERS = 3

REACHED_S = 90.0
"""Maximum time until a failpoint is reached, in seconds."""


async def kill_round(
    data_dir: Path, model: Model, failpoint: str, *, seed: int, log: Path, max_s: float = REACHED_S
) -> Result:
    """Run a Catalog until it kills itself at a failpoint, and check what the next one holds.

    Args:
        data_dir: its data folder.
        model: what the folder holds; changed by the round.
        failpoint: a name; empty: the Catalog is killed after `max_s`.
        seed: determines the calls.
        log: file for the output of the Catalogs.
        max_s: maximum time until the kill, in seconds.
    """
    before = model.acknowledged_count
    armed = {VARIABLE: failpoint} if failpoint else {}
    catalog = CatalogProcess(data_dir, log, **SETTINGS, **armed)
    reached = True
    try:
        async with working(catalog.client, model, callers=CALLERS, seed=seed):
            filtering = asyncio.create_task(_filter_often(catalog.client, model))
            try:
                async with asyncio.timeout(max_s):
                    await catalog.ended()
            except TimeoutError:
                reached = not failpoint
            finally:
                filtering.cancel()
                await catalog.kill()
    finally:
        await catalog.kill()
    result: Result = {
        "failpoint": failpoint,
        "reached": reached,
        "acknowledged": model.acknowledged_count - before,
    }
    catalog = CatalogProcess(data_dir, log, **SETTINGS)
    try:
        await catalog.ready()
        findings = await check(catalog.client, model)
    except StartError as error:
        return {**result, "problems": [str(error)]}
    finally:
        await catalog.kill()
    return {**result, "entries": findings.entry_count, "problems": findings.problems[:5]}


async def _filter_often(catalog: Catalog, model: Model) -> None:
    """Filter by a tag, which creates its index, until cancelled."""
    while True:
        for library in [library for library in model.libraries.values() if library.exists]:
            with contextlib.suppress(grpc.aio.AioRpcError):  # deleted, or the Catalog is gone
                await catalog.count(library.library_id, where(f"tags.{REVISION_TAG}", "=", 1))
        await asyncio.sleep(0.1)


async def run(output: Path, rounds: int, *, at_random: bool) -> list[Result]:
    """Run the rounds that the output file does not hold yet, on one data folder each."""

    async def run_round(number: int) -> Result:
        rng = random.Random(number)  # noqa: S311  # repeatable, not secret
        name = "" if at_random else NAMES[number % len(NAMES)]
        if name.startswith(FREQUENT):
            name = f"{name}:{rng.randint(1, 20)}"
        with tempfile.TemporaryDirectory() as folder:
            model, log = Model(), Path(folder) / "log"
            if name.startswith("start."):
                # Something to start with.
                await kill_round(Path(folder) / "data", model, "", seed=number, log=log, max_s=5)
            max_s = rng.uniform(1, 10) if at_random else REACHED_S
            return await kill_round(
                Path(folder) / "data", model, name, seed=number + 500, log=log, max_s=max_s
            )

    return await run_rounds(output, rounds, run_round)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=len(NAMES))
    parser.add_argument("--random", action="store_true", help="kill at random moments")
    parser.add_argument("--output", type=Path, default=Path("kill.jsonl"))
    options = parser.parse_args()
    results = asyncio.run(run(options.output, options.rounds, at_random=options.random))
    columns = ["round", "failpoint", "reached", "acknowledged", "entries", "problems"]
    sys.stdout.write(f"{table(results, columns)}\n")


if __name__ == "__main__":
    main()
