"""Measure what many tag names and many libraries cost the Catalog.

    python -m tests.faults.libraries [--libraries 90]

Prints the duration of adding seven entries with 64 new tag names each, and the memory maps of the
engine after it; then the duration of listing all libraries: at once, after a restart, and after a
kill of the Catalog and its engine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import grpc.aio
import numpy as np

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub as Stub
from imagesearch.type.v1 import tag_pb2
from imagesearch_services.common.probe import probe
from tests.faults.results import table
from tests.ports import free_port
from tests.waiting import until

NAMES = 64
ENTRIES = 7
DIMENSIONS = 64
SPACE = "copy@1"
CALL_S = 120.0
Result = TypeVar("Result")


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--libraries", type=int, default=90)
    options = parser.parse_args()
    rows: list[dict[str, object]] = []

    def report(what: str, value: object) -> None:
        rows.append({"what": what, "value": value})
        sys.stderr.write(f"{what}: {value}\n")

    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder)) as (catalog, process):
            await create(catalog, "shop-0")
            before = memory_maps(process.pid)
            for number in range(ENTRIES):
                _, duration_s = await timed(put(catalog, number))
                report(f"entry {number + 1} with {NAMES} new tag names, s", duration_s)
            report("memory maps of the engine for a tag", per_tag(process.pid, before))
            for number in range(1, options.libraries):
                await create(catalog, f"shop-{number}")
            count, duration_s = await timed(list_all(catalog))
            report(f"list {count} libraries, s", duration_s)
        async with running(Path(folder)) as (catalog, process):
            count, duration_s = await timed(list_all(catalog))
            report(f"list {count} libraries after a restart, s", duration_s)
            await put(catalog, ENTRIES)
            for pid in (process.pid, engine_pid(process.pid)):
                os.kill(pid, signal.SIGKILL)
        async with running(Path(folder)) as (catalog, _):
            count, duration_s = await timed(list_all(catalog))
            report(f"list {count} libraries after a kill, s", duration_s)
    sys.stdout.write(table(rows, ["what", "value"]) + "\n")
    return 0


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Stub, asyncio.subprocess.Process]]:
    port = free_port()
    prefix = "IMAGESEARCH_CATALOG_"
    settings = {"DATA_DIR": str(folder), "PORT": str(port), "METRICS_PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "imagesearch_services.catalog",
        env=os.environ | {prefix + name: value for name, value in settings.items()},
        stderr=asyncio.subprocess.DEVNULL,
    )
    target = f"127.0.0.1:{port}"
    try:
        await until(lambda: probe(target, "", 1.0) == "SERVING")
        async with grpc.aio.insecure_channel(target) as channel:
            yield Stub(channel), process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def create(catalog: Stub, library_id: str) -> None:
    library = pb.Library(library_id=library_id, type=1)
    library.spaces.add(name=SPACE, dimensions=DIMENSIONS)
    await catalog.CreateLibrary(pb.CreateLibraryRequest(library=library), timeout=CALL_S)


async def put(catalog: Stub, number: int) -> None:
    tags = {
        f"tag_{number * NAMES + name}": tag_pb2.TagValue(string_value="x") for name in range(NAMES)
    }
    entry = pb.Entry(image_id=str(number), tags=tags)
    vector = np.zeros(DIMENSIONS, "<f4")
    vector[number] = 1.0
    entry.vectors.add(space=SPACE, values=vector.tobytes())
    request = pb.PutEntriesRequest(library_id="shop-0", entries=[entry])
    (result,) = (await catalog.PutEntries(request, timeout=CALL_S)).results
    if result.HasField("error"):
        raise RuntimeError(result.error.message)


async def list_all(catalog: Stub) -> int:
    request, count = pb.ListLibrariesRequest(page_size=1000), 0
    while True:
        page = await catalog.ListLibraries(request, timeout=CALL_S)
        count += len(page.libraries)
        if not page.next_page_token:
            return count
        request.page_token = page.next_page_token


async def timed(work: Awaitable[Result]) -> tuple[Result, float]:
    started_s = time.monotonic()
    result = await work
    return result, round(time.monotonic() - started_s, 3)


def memory_maps(catalog: int) -> int:
    return len(Path(f"/proc/{engine_pid(catalog)}/maps").read_text().splitlines())


def per_tag(catalog: int, before: int) -> float:
    return round((memory_maps(catalog) - before) / (ENTRIES * NAMES), 1)


def engine_pid(catalog: int) -> int:
    """Return the process of the embedded engine, a child of the Catalog."""
    for child in Path(f"/proc/{catalog}/task/{catalog}/children").read_text().split():
        arguments = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        if "imagesearch_services.catalog.edge" in arguments:
            return int(child)
    raise RuntimeError("the Catalog has no engine")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
