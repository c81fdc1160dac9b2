"""Measures what durability costs: adding through the whole suite, in batches of 32.

    python -m tests.faults.cost --batches 12

Two Catalogs, one with each level of durability, and a Gateway for each share one Embedding service
and one Triton. They add the same pictures in turn, and alternate which of them is first.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import grpc

from imagesearch.gateway.v1 import image_pb2, library_pb2
from imagesearch.gateway.v1.image_search_service_pb2_grpc import ImageSearchServiceStub
from imagesearch.type.v1 import library_type_pb2
from imagesearch_services.runner.suite import Ports, Suite, SuiteSettings, free_ports
from tests.faults.results import table
from tests.triton_server import prepared_models

PICTURES = Path(__file__).parents[3] / "shared" / "data" / "garments"

BATCH = 32

LEVELS = ("process", "power")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=12, help="timed batches of each side")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="folder of photos")
    options = parser.parse_args()
    files = sorted(options.pictures.rglob("*.jpg"))
    step = max(1, len(files) // (BATCH * (options.batches + 1)))
    contents = [file.read_bytes() for file in files[::step]]
    batches = [contents[start : start + BATCH] for start in range(0, len(contents), BATCH)]
    with tempfile.TemporaryDirectory(prefix="imagesearch-cost-") as folder:
        suites = start_suites(Path(folder))
        try:
            times_s = measure(suites, batches[: options.batches + 1])
        finally:
            for suite in reversed(suites):
                suite.stop()
    report(times_s)


def start_suites(folder: Path) -> list[Suite]:
    """Start a suite, and a second Gateway and Catalog that share its other processes."""
    first, second = (
        SuiteSettings(
            port=free_ports(1)[0],
            data_dir=folder / level,
            models_dir=prepared_models(),
            environment={"IMAGESEARCH_CATALOG_DURABILITY": level},
        )
        for level in LEVELS
    )
    suite = Suite.start(first)
    shared = dataclasses.replace(
        Ports.choose(second.port),
        embedding=suite.ports.embedding,
        triton_grpc=suite.ports.triton_grpc,
    )
    other = Suite(second, shared, {})
    try:
        for name in ("catalog", "gateway"):
            other.launch(name)
            other.wait_serving(name)
    except BaseException:
        other.stop()
        suite.stop()
        raise
    return [suite, other]


def measure(suites: Sequence[Suite], batches: Sequence[Sequence[bytes]]) -> list[list[float]]:
    """Return the seconds of each batch by side, without the first, which warms up."""
    times_s: list[list[float]] = [[] for _ in suites]
    gateways = [ImageSearchServiceStub(grpc.insecure_channel(suite.target)) for suite in suites]
    for gateway in gateways:
        library = library_pb2.Library(type=library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE)
        gateway.CreateLibrary(library_pb2.CreateLibraryRequest(library_id="cost", library=library))
    for number, batch in enumerate(batches):
        request = image_pb2.BatchAddImagesRequest(parent="libraries/cost")
        for row, content in enumerate(batch):
            request.requests.add(image_id=f"{number}-{row}", image={"content": content})
        sides = list(enumerate(gateways))
        for side, gateway in sides if number % 2 else reversed(sides):
            began_s = time.perf_counter()
            answer = gateway.BatchAddImages(request)
            if answer.added_count != len(batch):
                sys.exit(f"only {answer.added_count} of {len(batch)} pictures were added")
            if number:
                times_s[side].append(time.perf_counter() - began_s)
    return times_s


def report(times_s: Sequence[Sequence[float]]) -> None:
    rows = [
        {
            "durability": level,
            "batches": len(times),
            "median of a batch, ms": round(statistics.median(times) * 1000, 1),
            "mean, ms": round(statistics.mean(times) * 1000, 1),
        }
        for level, times in zip(LEVELS, times_s, strict=True)
    ]
    ratios = [power / process for process, power in zip(*times_s, strict=True)]
    sys.stdout.write(f"{table(rows, list(rows[0]))}\n\n")
    sys.stdout.write(f"median of power / process by batch: {statistics.median(ratios):.3f}\n")


if __name__ == "__main__":
    main()
