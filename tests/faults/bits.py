"""Flips bytes in the stored files of a Catalog: `python -m tests.faults.bits`.

A round fills two libraries, inverts a byte of a stored file of one of them (not in a hole), starts
the Catalog again and reads everything. The Catalog must start and serve the other library. It may
refuse what is damaged; an answer that differs from what was stored is counted as such.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
from pathlib import Path

import grpc.aio

from tests.faults.catalog_process import CatalogProcess, StartError
from tests.faults.check import check
from tests.faults.model import EntryState, Model
from tests.faults.results import Result, run_rounds, table

ENTRIES = 40
"""Entries of each of the two libraries."""


async def bits_round(folder: Path, *, seed: int) -> Result:
    """Fill two libraries, invert a byte of the first one's files, and read both."""
    rng = random.Random(seed)  # noqa: S311  # repeatable, not secret
    data_dir, log = folder / "data", folder / "log"
    model = Model()
    catalog = CatalogProcess(data_dir, log)
    await catalog.ready()
    uid = ""
    for library_id in ("damaged", "intact"):
        created = await catalog.client.make_library(library_id)
        uid = uid or created.uid
        states = [EntryState(f"{library_id} {number}", 1) for number in range(ENTRIES)]
        await catalog.client.store(library_id, *(state.message() for state in states))
        library = model.library(library_id)
        library.settle_existence(True)
        for state in states:
            library.settle(state.image_id, state)
    if seed % 2:
        await catalog.stop()  # flushes the shards
    else:
        await catalog.kill()  # leaves everything to the log
    file, offset = _flip(rng, data_dir, uid)
    result: Result = {"file": file, "offset": offset, "flushed": bool(seed % 2)}
    catalog = CatalogProcess(data_dir, log)
    try:
        await catalog.ready()
        return {**result, **await _read(catalog, model)}
    except StartError as error:
        return {**result, "outcome": f"no start: {error}"}
    finally:
        await catalog.kill()


async def _read(catalog: CatalogProcess, model: Model) -> Result:
    try:
        found = await catalog.client.library("intact")
    except grpc.aio.AioRpcError as error:
        return {"outcome": f"the intact library is refused: {error.details()}"}
    findings = await check(catalog.client, model, retries=False)
    if not findings.problems:
        return {"outcome": f"all as stored, {found.entry_count} entries intact"}
    problem = findings.problems[0][:120]
    refused = problem.startswith(("DATA_LOSS", "UNAVAILABLE"))
    return {"outcome": f"{'refused' if refused else 'differs'}: {problem}"}


def _flip(rng: random.Random, data_dir: Path, uid: str) -> tuple[str, int]:
    """Invert a byte of a file of a library; return the file and the offset."""
    roots = [data_dir / "catalog" / "libraries" / uid, data_dir / "catalog" / "thumbnails" / uid]
    files = [path for root in roots for path in sorted(root.rglob("*")) if path.is_file()]
    file = rng.choice([path for path in files if path.stat().st_blocks and path.stat().st_size])
    with file.open("r+b") as stream:
        start = os.lseek(stream.fileno(), 0, os.SEEK_DATA)
        end = os.lseek(stream.fileno(), start, os.SEEK_HOLE)
        offset = rng.randrange(start, end)
        stream.seek(offset)
        byte = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte[0] ^ 0xFF]))
    return str(file.relative_to(data_dir / "catalog")), offset


async def run(rounds: int, output: Path) -> list[Result]:
    """Run the rounds that the output file does not hold yet."""

    async def run_round(number: int) -> Result:
        with tempfile.TemporaryDirectory() as folder:
            return await bits_round(Path(folder), seed=number)

    return await run_rounds(output, rounds, run_round)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--output", type=Path, default=Path("bits.jsonl"))
    options = parser.parse_args()
    results = asyncio.run(run(options.rounds, options.output))
    sys.stdout.write(f"{table(results, ['round', 'flushed', 'file', 'offset', 'outcome'])}\n")


if __name__ == "__main__":
    main()
