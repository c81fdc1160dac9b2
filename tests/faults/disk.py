"""Fills the disk of a Catalog again and again: `python -m tests.faults.disk`.

A round fills an ext4 disk to the last byte while callers change entries and libraries, deletes
entries and a library at 0 bytes free, removes the filler, and compares everything with a model. In
every second round the Catalog is killed on the full disk and has to start there.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.common.errors import Reason
from tests.contract.catalog.support import Catalog, refused
from tests.faults.catalog_process import CatalogProcess, StartError
from tests.faults.check import check
from tests.faults.loop_disk import LoopDisk, loop_disk, unsupported
from tests.faults.model import LibraryModel, Model
from tests.faults.results import Result, run_rounds, table
from tests.faults.workload import Caller, working
from tests.waiting import until

SETTINGS = {"MIN_FREE_MIB": "32", "INDEXING_THRESHOLD": "100"}

DISK_MIB = 512

CHANGES = 60
"""Acknowledged changes before the disk is filled, and after it has space again."""

REFUSALS = 5
"""Refused calls on the full disk."""


async def disk_round(disk: LoopDisk, model: Model, *, seed: int, log: Path, kill: bool) -> Result:
    """Fill the disk during changes, free it, and check the Catalog before and after a restart."""
    catalog = CatalogProcess(disk.path / "data", log, **SETTINGS)
    result: Result = {"killed": kill, "problems": []}
    try:
        await catalog.ready()
        async with working(catalog.client, model, callers=3, seed=seed, finish=True) as callers:
            await _changed(model, CHANGES)
            filler = disk.fill()
            await until(lambda: _refusals(callers) >= REFUSALS)
            result["refused"] = _refusals(callers)
        if kill:
            await catalog.kill()
            catalog = CatalogProcess(disk.path / "data", log, **SETTINGS)
            await catalog.ready()
        result["free_bytes"] = disk.free_bytes()
        findings = await check(catalog.client, model, retries=False)
        result["deleted"] = await _delete_some(catalog.client, model)
        filler.unlink()
        async with working(catalog.client, model, callers=3, seed=seed + 50, finish=True):
            await _changed(model, CHANGES)
        findings.problems += (await check(catalog.client, model)).problems
        await catalog.stop()
        catalog = CatalogProcess(disk.path / "data", log, **SETTINGS)
        await catalog.ready()
        after = await check(catalog.client, model)
        result |= {"entries": after.entry_count, "problems": findings.problems + after.problems}
    except (StartError, TimeoutError) as error:
        result["problems"] = [f"{type(error).__name__} {error} {catalog.last_lines()}"]
    finally:
        await catalog.kill()
    return result


async def _changed(model: Model, count: int) -> None:
    target = model.acknowledged_count + count
    await until(lambda: model.acknowledged_count >= target)


def _refusals(callers: list[Caller]) -> int:
    return sum(caller.refused.get(Reason.STORAGE_FULL.value, 0) for caller in callers)


async def _delete_some(catalog: Catalog, model: Model) -> int:
    """Delete entries of every library while writes are refused; return their number."""
    deleted = 0
    for library in [library for library in model.libraries.values() if library.exists]:
        states = library.certain()[:5]
        if states:
            deleted += await catalog.delete(
                library.library_id, *(state.image_id for state in states)
            )
            for state in states:
                library.settle(state.image_id, None)
        with refused(Reason.STORAGE_FULL):
            await catalog.update(
                library.library_id, pb.Entry(image_id="any", entity_id="e"), "entity_id"
            )
    await _delete_one(catalog, list(model.libraries.values()))
    return deleted


async def _delete_one(catalog: Catalog, libraries: list[LibraryModel]) -> None:
    library = next(library for library in libraries if library.exists)
    await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id=library.library_id))
    library.settle_existence(False)


async def run(rounds: int, output: Path) -> list[Result]:
    """Run the rounds that the output file does not hold yet."""

    async def run_round(number: int) -> Result:
        with loop_disk(DISK_MIB) as disk, tempfile.TemporaryDirectory() as logs:
            log = Path(logs) / "log"
            return await disk_round(disk, Model(), seed=100 * number, log=log, kill=number % 2 == 1)

    return await run_rounds(output, rounds, run_round)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("disk.jsonl"))
    options = parser.parse_args()
    if reason := unsupported():
        parser.exit(1, f"this machine can't run it: {reason}\n")
    results = asyncio.run(run(options.rounds, options.output))
    columns = ["round", "killed", "refused", "free_bytes", "deleted", "entries", "problems"]
    sys.stdout.write(f"{table(results, columns)}\n")


if __name__ == "__main__":
    main()
