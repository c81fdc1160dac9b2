"""Measure PutEntries and QueryEntries of a Catalog in its own process.

    python -m tests.benchmarks.catalog [--entries N]

The vectors form clusters in a space of few dimensions, like embeddings of pictures. With vectors
that are uniformly distributed on the sphere, no index would be effective.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.catalog.v1 import filter_pb2
from imagesearch_services.catalog.edge.files import disk_bytes
from tests.contract.catalog.support import Catalog
from tests.ports import free_port

SPACE = "copy@1"
DIMENSIONS = 512
INTRINSIC_DIMENSIONS = 48
CENTERS = 1000
BATCH = 100
QUERIES = 300
ROUNDING = 1e-6
"""Tolerance for rounding errors of a cosine similarity."""


def draw(count: int, seed: int) -> Any:
    """Return `count` unit vectors, float32 [count, DIMENSIONS]."""
    fixed = np.random.default_rng(0)
    basis = fixed.standard_normal((INTRINSIC_DIMENSIONS, DIMENSIONS)).astype("<f4")
    centers = fixed.standard_normal((CENTERS, INTRINSIC_DIMENSIONS)).astype("<f4")
    varied = np.random.default_rng(seed)
    low = centers[varied.integers(CENTERS, size=count)]
    low = low + 0.7 * varied.standard_normal(low.shape).astype("<f4")
    vectors = low @ basis + 0.5 * varied.standard_normal((count, DIMENSIONS)).astype("<f4")
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f4")


@asynccontextmanager
async def running(folder: Path, **settings: str) -> AsyncIterator[tuple[Catalog, int]]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "imagesearch_services.catalog",
        env=os.environ
        | {"IMAGESEARCH_CATALOG_PORT": str(port), "IMAGESEARCH_CATALOG_LOG_LEVEL": "warning"}
        | {"IMAGESEARCH_CATALOG_DATA_DIR": str(folder)}
        | {f"IMAGESEARCH_CATALOG_{name}": value for name, value in settings.items()},
    )
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            await asyncio.wait_for(channel.channel_ready(), 60)
            yield Catalog(channel), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


def entries(vectors: Any, start: int) -> list[pb.Entry]:
    return [
        pb.Entry(
            image_id=f"image {number}",
            category=number % 14 + 1,  # type: ignore[arg-type]
            tags={"price": {"float_value": number % 100}, "brand": {"string_value": "acme"}},
            vectors=[{"space": SPACE, "values": vector.tobytes()}],
        )
        for number, vector in enumerate(vectors, start)
    ]


async def time_ms(calls: Sequence[Callable[[], Awaitable[Any]]]) -> dict[str, float]:
    times: list[float] = []
    for call in calls:
        started = time.perf_counter()
        await call()
        times.append((time.perf_counter() - started) * 1e3)
    return summarize(times)


def summarize(times_ms: Sequence[float]) -> dict[str, float]:
    return {
        "p50_ms": round(float(np.percentile(times_ms, 50)), 2),
        "p95_ms": round(float(np.percentile(times_ms, 95)), 2),
        "max_ms": round(max(times_ms), 2),
    }


def queries(
    catalog: Catalog, vectors: Any, where: filter_pb2.Filter | None = None
) -> list[Callable[[], Awaitable[Any]]]:
    def query(vector: Any) -> Callable[[], Awaitable[Any]]:
        request = pb.QueryEntriesRequest(
            library_id="bench",
            vectors=[{"space": SPACE, "values": vector.tobytes()}],
            filter=where,
            include_entries=True,
        )
        return lambda: catalog.stub.QueryEntries(request)

    return [query(vector) for vector in vectors]


def rss_mib(pid: int) -> dict[str, int]:
    """Return the resident memory of a process and its children by module name, in MiB."""
    sizes: dict[str, int] = {}
    for process, status in _statuses(pid).items():
        command = Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8").split("\0")
        module = next((word for word in command if "imagesearch_services" in word), process)
        sizes[module.rpartition(".")[2]] = _kb(status["VmRSS"]) // 1024
    return sizes


def memory_kb(pid: int) -> tuple[int, int]:
    """Return the resident memory of a process with its children, and its file-backed part, kB."""
    statuses = _statuses(pid).values()
    resident, file_backed = (
        sum(_kb(status[key]) for status in statuses) for key in ("VmRSS", "RssFile")
    )
    return resident, file_backed


def _statuses(pid: int) -> dict[str, dict[str, str]]:
    """Return `/proc/PID/status` of a process and its children, by process id."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return {
        process: dict(
            line.split(":", 1)
            for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
        )
        for process in (str(pid), *children)
    }


def _kb(value: str) -> int:
    """Read a size such as "1024 kB"."""
    return int(value.split(maxsplit=1)[0])


async def recall_at_10(catalog: Catalog, vectors: Any, stored: Any) -> float:
    """Return the share of hits that are as near as the tenth nearest entry by brute force."""
    tenth = np.partition(vectors @ stored.T, -10, axis=1)[:, -10]
    found = 0
    for query, floor in zip(queries(catalog, vectors), tenth, strict=True):
        hits = (await query()).results[0].hits
        found += sum(hit.similarity >= floor - ROUNDING for hit in hits)
    return round(found / 10 / len(vectors), 4)


class Figures(dict[str, Any]):
    """Figures by name; prints each figure when it is set, because a run takes minutes."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        sys.stderr.write(f"{name}: {value}\n")


async def measure(folder: Path, count: int) -> Figures:
    figures = Figures(entries=count, dimensions=DIMENSIONS)
    samples = draw(QUERIES, seed=1)
    async with running(folder, INDEXING_THRESHOLD="0") as (catalog, pid):
        stored = await measure_puts(catalog, count, figures)
        figures["query_unindexed"] = await time_ms(queries(catalog, samples))
        figures["query_unindexed_filtered"] = await time_ms(queries(catalog, samples, bags()))
        figures["rss_unindexed_mib"] = rss_mib(pid)
    started = time.perf_counter()
    async with running(folder, INDEXING_THRESHOLD="1000") as (catalog, pid):
        await catalog.library("bench")
        figures["restart_to_first_answer_s"] = round(time.perf_counter() - started, 2)
        stored += await measure_index_build(catalog, count, samples, figures)
        figures["index_build_s"] = round(time.perf_counter() - started, 1)
        figures["query_indexed"] = await time_ms(queries(catalog, samples))
        figures["query_indexed_filtered"] = await time_ms(queries(catalog, samples, bags()))
        figures["recall_at_10"] = await recall_at_10(catalog, samples, np.concatenate(stored))
        library = pb.GetLibraryRequest(library_id="bench")
        figures["get_library"] = await time_ms(
            [lambda: catalog.stub.GetLibrary(library) for _ in range(QUERIES)]
        )
        figures["rss_indexed_mib"] = rss_mib(pid)
    figures["disk_bytes_per_entry"] = round(disk_bytes(folder) / count)
    started = time.perf_counter()
    async with running(folder) as (catalog, _):
        await catalog.library("bench")
        figures["restart_indexed_to_first_answer_s"] = round(time.perf_counter() - started, 2)
    return figures


async def measure_puts(catalog: Catalog, count: int, figures: Figures) -> list[Any]:
    """Fill the library "bench"; return the stored vectors by batch."""
    await catalog.make_library("bench", spaces=[{"name": SPACE, "dimensions": DIMENSIONS}])
    spent_s = 0.0
    stored = []
    for start in range(0, count, BATCH):
        stored.append(draw(BATCH, seed=2 + start))
        request = pb.PutEntriesRequest(library_id="bench", entries=entries(stored[-1], start))
        started = time.perf_counter()
        response = await catalog.stub.PutEntries(request)
        spent_s += time.perf_counter() - started
        assert all(result.HasField("entry") for result in response.results)
    figures["put_entries_per_s"] = round(count / spent_s)
    figures["put_100_ms"] = round(spent_s / count * BATCH * 1e3, 2)
    return stored


async def measure_index_build(
    catalog: Catalog, count: int, samples: Any, figures: Figures
) -> list[Any]:
    """Query and add entries until the index is built; return the vectors of the new entries."""
    query_ms: list[float] = []
    put_ms: list[float] = []
    stored: list[Any] = []
    while (await catalog.library("bench")).unindexed_vector_count > count // 2:
        vectors = samples[len(stored) % QUERIES][None]
        query_ms.append((await time_ms(queries(catalog, vectors)))["p50_ms"])
        started = time.perf_counter()
        await catalog.store("bench", *entries(vectors, count + len(stored)))
        put_ms.append((time.perf_counter() - started) * 1e3)
        stored.append(vectors)
        await asyncio.sleep(0.05)
    figures["query_while_building"] = summarize(query_ms)
    figures["put_1_while_building"] = summarize(put_ms)
    return stored


def bags() -> filter_pb2.Filter:
    """Return a filter for one of 14 categories."""
    return filter_pb2.Filter(
        condition=filter_pb2.Condition(
            field="category",
            operator=filter_pb2.Condition.OPERATOR_EQUAL,
            value={"int_value": 4},
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, default=100_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="catalog-benchmark-"))
    try:
        figures = asyncio.run(measure(folder, options.entries))
    finally:
        shutil.rmtree(folder)
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
