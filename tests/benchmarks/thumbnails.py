"""Measure the cost of thumbnails when pictures are added and searched.

    python -m tests.benchmarks.thumbnails --pictures ../shared/data/street --count 320

Adds the same photographs, alternating, to a library with thumbnails and to a library without, in one suite.
Then searches the first library with and without `include_thumbnails`. Prints a Markdown report of the time, and
of the processor time of the suite, which other load on the machine affects less.
"""
# ruff: noqa: E501  # a report's lines

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import grpc

from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.gateway.v1 import image_search_service_pb2_grpc as gateway_grpc
from imagesearch.type.v1 import library_type_pb2, picture_pb2
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.triton_server import prepared_models

DEFAULT_PICTURES = Path(__file__).parents[2].parent / "shared" / "data" / "street"
BATCH = 32
SEARCHES = 60
Stub = gateway_grpc.ImageSearchServiceStub


@dataclasses.dataclass
class Side:
    """Cost of adding pictures to one of the libraries."""

    library: str
    batch_s: list[float] = dataclasses.field(default_factory=list)
    cpu_s: dict[str, float] = dataclasses.field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, default=DEFAULT_PICTURES, help="folder of photos")
    parser.add_argument("--count", type=int, default=320, help="pictures added to each library")
    options = parser.parse_args()
    files = sorted(options.pictures.rglob("*.jpg"))[: options.count]
    if len(files) < 2 * BATCH:
        sys.exit(f"{options.pictures} has {len(files)} photos, {2 * BATCH} are required")
    contents = [file.read_bytes() for file in files]
    with tempfile.TemporaryDirectory(prefix="imagesearch-thumbnails-") as folder:
        settings = SuiteSettings(
            port=free_ports(1)[0], data_dir=Path(folder), models_dir=prepared_models()
        )
        suite = Suite.start(settings)
        try:
            with grpc.insecure_channel(suite.target) as channel:
                run(suite, Stub(channel), contents)
        finally:
            suite.stop()


def run(suite: Suite, gateway: Stub, contents: Sequence[bytes]) -> None:
    sides = [
        make_side(gateway, "without", disabled=True),
        make_side(gateway, "with", disabled=False),
    ]
    batches = [contents[start : start + BATCH] for start in range(0, len(contents), BATCH)]
    for number, batch in enumerate(batches):
        for side in sides if number % 2 else reversed(sides):
            measure = side if number else Side(side.library)  # the first round warms up
            add_batch(suite, gateway, measure, number, batch)
    sizes = [
        file.stat().st_size
        for file in (suite.settings.data_dir / "catalog" / "thumbnails").rglob("*.jpg")
    ]
    report_adding(*sides, pictures=len(contents) - BATCH)
    print_line(
        f"\nA thumbnail takes {statistics.mean(sizes):,.0f} bytes on average, "
        f"{statistics.quantiles(sizes, n=20)[-1]:,.0f} at the 95th percentile ({len(sizes)} pictures)."
    )
    report_searching(gateway, sides[1].library, contents)


def make_side(gateway: Stub, name: str, *, disabled: bool) -> Side:
    library = library_pb2.Library(
        type=library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE, thumbnails_disabled=disabled
    )
    request = library_pb2.CreateLibraryRequest(library_id=name, library=library)
    return Side(gateway.CreateLibrary(request).name)


def add_batch(
    suite: Suite, gateway: Stub, side: Side, number: int, contents: Sequence[bytes]
) -> None:
    request = image_pb2.BatchAddImagesRequest(parent=side.library)
    for row, content in enumerate(contents):
        request.requests.add(image_id=f"{number}-{row}", image={"content": content})
    before, began_s = cpu_s(suite), time.perf_counter()
    answer = gateway.BatchAddImages(request)
    side.batch_s.append(time.perf_counter() - began_s)
    for name, spent_s in cpu_s(suite).items():
        side.cpu_s[name] = side.cpu_s.get(name, 0) + spent_s - before[name]
    if answer.added_count != len(contents):
        sys.exit(f"only {answer.added_count} of {len(contents)} pictures were added")


def cpu_s(suite: Suite) -> dict[str, float]:
    """Return the processor time of each process, including its children."""
    ticks = os.sysconf("SC_CLK_TCK")
    parents = {pid: stat for pid, stat in map(read_stat, Path("/proc").glob("[0-9]*")) if stat}
    spent: dict[str, float] = {}
    for name, process in suite.processes.items():
        family = [process.pid]
        for pid in family:
            family += [child for child, stat in parents.items() if int(stat[1]) == pid]
        spent[name] = sum(int(parents[pid][11]) + int(parents[pid][12]) for pid in family) / ticks
    return spent


def read_stat(folder: Path) -> tuple[int, list[str]]:
    """Return a process's id and its fields from the third on; empty if it has ended."""
    try:
        return int(folder.name), (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return int(folder.name), []


def report_adding(without: Side, with_: Side, *, pictures: int) -> None:
    rows = {
        "adding, batches of 32, median": (
            f"{BATCH / statistics.median(without.batch_s):.1f} /s",
            f"{BATCH / statistics.median(with_.batch_s):.1f} /s",
            f"{statistics.median(with_.batch_s) / statistics.median(without.batch_s) - 1:+.1%} time",
        )
    }
    totals = [sum(side.cpu_s.values()) for side in (without, with_)]
    for name in (*without.cpu_s, "all"):
        costs = [
            (total if name == "all" else side.cpu_s[name]) * 1e3 / pictures
            for side, total in zip((without, with_), totals, strict=True)
        ]
        rows[f"processor time per picture: {name}"] = (
            f"{costs[0]:.1f} ms",
            f"{costs[1]:.1f} ms",
            f"{costs[1] - costs[0]:+.1f} ms ({costs[1] / costs[0] - 1:+.1%})",
        )
    print_line("| measure | without | with | difference |\n|---|---|---|---|")
    for name, cells in rows.items():
        print_line(f"| {name} | {' | '.join(cells)} |")


def report_searching(gateway: Stub, library: str, contents: Sequence[bytes]) -> None:
    """Search with and without thumbnails, alternating; RELATION_SIMILAR fills every page."""
    took_ms: dict[bool, list[float]] = {False: [], True: []}
    steps_ms: list[float] = []
    for number in range(SEARCHES):
        for include in (False, True) if number % 2 else (True, False):
            request = search_pb2.SearchImagesRequest(
                parent=library,
                image=picture_pb2.ImageContent(content=contents[number % len(contents)]),
                relation=search_pb2.RELATION_SIMILAR,
                include_thumbnails=include,
            )
            began_s = time.perf_counter()
            answer = gateway.SearchImages(request)
            took_ms[include].append((time.perf_counter() - began_s) * 1e3)
            steps_ms += [step.duration_ms for step in answer.timings if step.step == "thumbnails"]
            if include and not all(match.thumbnail for match in answer.matches):
                sys.exit("a match has no thumbnail")
    medians = {include: statistics.median(durations) for include, durations in took_ms.items()}
    print_line(
        f"\nA search with the thumbnails of its 10 matches: {medians[True]:.1f} ms, without {medians[False]:.1f} ms "
        f"(medians; the step itself {statistics.median(steps_ms):.1f} ms)."
    )


def print_line(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
