"""Cuts the power of a disk while a Catalog on it stores entries: `python -m tests.faults.power`.

A round starts a Catalog on an ext4 image, changes entries and libraries from several callers, cuts
the power at a random moment, starts the Catalog again and compares everything with a model. Rounds
alternate between a new disk, whose power is cut within the first seconds, index builds, flushes,
and a disk that goes on after its last power loss.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

from tests.faults.catalog_process import CatalogProcess, StartError
from tests.faults.check import check
from tests.faults.loop_disk import LoopDisk, loop_disk, unsupported
from tests.faults.model import Model
from tests.faults.results import Result, run_rounds, table
from tests.faults.workload import working
from tests.waiting import until

KINDS: dict[str, tuple[float, dict[str, str]]] = {
    "start": (3.0, {}),
    "import": (12.0, {}),
    "index builds": (12.0, {"INDEXING_THRESHOLD": "100"}),
    "flushes": (12.0, {"FLUSH_POINTS": "50"}),
}
"""Kinds of rounds: latest moment of the power loss, in seconds, and settings. The time counts from
the start, or from the first acknowledged change."""

CALLERS = 4


async def power_round(
    disk: LoopDisk,
    model: Model,
    moment: Awaitable[object],
    *,
    seed: int,
    log: Path,
    **settings: str,
) -> Result:
    """Run a Catalog, cut the power at a moment, and check what the next Catalog holds.

    Args:
        disk: holds the data folder.
        model: what the disk holds; changed by the round.
        moment: the power is cut when it is reached.
        seed: determines the calls.
        log: file for the output of the Catalogs, on another disk.
        settings: of the Catalogs.
    """
    data_dir = disk.path / "data"
    settings = {"MIN_FREE_MIB": "16", **settings}
    catalog = CatalogProcess(data_dir, log, **settings)
    before = model.acknowledged_count
    try:
        async with working(catalog.client, model, callers=CALLERS, seed=seed):
            await moment
            disk.cut_power()
    finally:
        await catalog.kill()
        disk.unmount()
        disk.mount()
    acknowledged = model.acknowledged_count - before
    started_s = time.monotonic()
    catalog = CatalogProcess(data_dir, log, **settings)
    try:
        await catalog.ready()
        start_s = round(time.monotonic() - started_s, 1)
        findings = await check(catalog.client, model)
    except StartError as error:
        return {"acknowledged": acknowledged, "problems": [str(error)]}
    finally:
        await catalog.stop()
    return {
        "acknowledged": acknowledged,
        "start_s": start_s,
        "entries": findings.entry_count,
        "problems": findings.problems[:5],
    }


async def run(rounds: int, output: Path, durability: str, first_seed: int) -> list[Result]:
    """Run all rounds that the output file does not hold yet."""
    kinds = list(KINDS)

    async def run_round(number: int) -> Result:
        rng = random.Random(first_seed + number)  # noqa: S311  # repeatable, not secret
        kind = kinds[number % len(kinds)]
        max_s, settings = KINDS[kind]
        with loop_disk(1024) as disk, tempfile.TemporaryDirectory() as logs:
            model = Model()
            result: Result = {}
            for life in range(2):  # the second one goes on after the first power loss
                after_s = rng.uniform(0.2, max_s)
                result = await power_round(
                    disk,
                    model,
                    _moment(model, after_s, at_start=kind == "start"),
                    seed=1000 * number + 100 * life + first_seed,
                    log=Path(logs) / "catalog.log",
                    DURABILITY=durability,
                    **settings,
                )
                if result["problems"]:
                    break
            return {
                "kind": kind,
                "durability": durability,
                "cut_after_s": round(after_s, 2),
                **result,
            }

    return await run_rounds(output, rounds, run_round)


async def _moment(model: Model, after_s: float, *, at_start: bool) -> None:
    """Wait for a time from the start of the Catalog, or from its first acknowledged change."""
    before = model.acknowledged_count
    if not at_start:
        await until(lambda: model.acknowledged_count > before)
    await asyncio.sleep(after_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("power.jsonl"))
    parser.add_argument("--durability", choices=["power", "process"], default="power")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if reason := unsupported():
        parser.exit(1, f"this machine can't run it: {reason}\n")
    results = asyncio.run(run(options.rounds, options.output, options.durability, options.seed))
    columns = ["round", "kind", "cut_after_s", "acknowledged", "entries", "start_s", "problems"]
    sys.stdout.write(f"{table(results, columns)}\n")


if __name__ == "__main__":
    main()
