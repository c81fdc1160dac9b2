"""Measure the cost of subject detection in a product search.

    python -m tests.benchmarks.products.speed

One client searches through the whole suite with street photos that the parser was not trained on,
and with catalogue pictures. Each picture is searched in three ways, which alternate in one run:

- without detection (the whole picture);
- with detection;
- with detection in two calls: `DetectSubjects`, then a search with the main subject's box. This is
  the cost for clients that do not combine both in a single call.

Afterwards each model runs alone on Triton, one picture at a time. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from imagesearch.client import Client, LibraryType, SearchImagesResponse, request_builders
from imagesearch_services.embedding.inference.probe import probe_picture
from imagesearch_services.embedding.inference.triton import TritonClient
from imagesearch_services.models.common.pictures import all_names, data_folder
from imagesearch_services.models.product.splits import parser_split
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.triton_server import prepared_models, running_triton

ADD_BATCH = 20
MODEL_RUNS = 40
WARM_UP = 5
"""Number of first searches and model runs that are not measured."""
STEPS = ("embed:decode", "embed:find_subjects", "embed:preprocess", "embed:infer", "embed", "query")

Search = Callable[[Client, str, bytes], SearchImagesResponse]


def without(client: Client, parent: str, picture: bytes) -> SearchImagesResponse:
    return client.search_images(parent=parent, image=picture, subject_detection=False)


def with_detection(client: Client, parent: str, picture: bytes) -> SearchImagesResponse:
    return client.search_images(parent=parent, image=picture)


def in_two_calls(client: Client, parent: str, picture: bytes) -> SearchImagesResponse:
    subjects = client.detect_subjects(image=picture).subjects
    region = subjects[0].box if subjects else None
    return client.search_images(
        parent=parent, image=picture, region=region, subject_detection=False
    )


SEARCHES: dict[str, Search] = {
    "without": without,
    "with detection": with_detection,
    "in two calls": in_two_calls,
}


def pictures(data: Path, count: int) -> dict[str, list[bytes]]:
    """Read the queries, by kind of picture."""
    street = [f"street/photos/{name}.jpg" for name in parser_split().street]
    shop = [name for name in all_names(data) if name.startswith("grocery/catalogue/")]
    return {
        "street photos": [(data / name).read_bytes() for name in street[:count]],
        "catalogue pictures": [(data / name).read_bytes() for name in shop[:count]],
    }


def stock(client: Client, data: Path, count: int) -> str:
    """Create a library of garments and return its name."""
    library = client.create_library(
        library_id="goods", library_type=LibraryType.LIBRARY_TYPE_PRODUCT
    )
    names = [name for name in all_names(data) if name.startswith("garments/")]
    names = names[:: max(1, len(names) // count)][:count]
    for start in range(0, len(names), ADD_BATCH):
        adds = [
            request_builders.add_image(image=(data / name).read_bytes())
            for name in names[start : start + ADD_BATCH]
        ]
        response = client.batch_add_images(parent=library.name, requests=adds)
        if response.added_count != len(adds):
            raise SystemExit(f"{len(adds) - response.added_count} pictures were not added")
    return library.name


def measure(client: Client, parent: str, queries: Sequence[bytes]) -> Iterator[str]:
    """Search with each picture in every way; yields the lines of a table of medians."""
    durations_ms: dict[str, list[float]] = {name: [] for name in SEARCHES}
    steps_ms: dict[tuple[str, str], list[float]] = {}
    subjects = []
    for row, picture in enumerate([*queries[:WARM_UP], *queries]):
        for name, search in SEARCHES.items():
            began_s = time.perf_counter()
            response = search(client, parent, picture)
            if row < WARM_UP:
                continue
            durations_ms[name].append((time.perf_counter() - began_s) * 1e3)
            for timing in response.timings:
                steps_ms.setdefault((name, timing.step), []).append(timing.duration_ms)
            if search is with_detection:
                subjects.append(len(response.subjects))
    median = {name: statistics.median(values) for name, values in durations_ms.items()}
    yield f"{len(queries)} pictures, {statistics.mean(subjects):.1f} subjects each"
    yield ""
    yield "| step, median ms | " + " | ".join(SEARCHES) + " |"
    yield "|---|" + "---:|" * len(SEARCHES)
    for step in STEPS:
        cells = [
            f"{statistics.median(steps_ms[name, step]):.1f}" if (name, step) in steps_ms else "–"
            for name in SEARCHES
        ]
        yield f"| {step} | {' | '.join(cells)} |"
    yield "| **at the client** | " + " | ".join(f"{median[name]:.1f}" for name in SEARCHES) + " |"
    ratios = [f"{median[name] / median['without']:.2f} ×" for name in SEARCHES]
    yield f"| ratio to a search without | {' | '.join(ratios)} |"


async def model_costs() -> list[str]:
    """Run each model alone, one picture at a time; returns the lines of a table."""
    lines = ["| model | input | one picture, median ms |", "|---|---|---:|"]
    with running_triton() as server:
        triton = TritonClient(server.ports.grpc_address, infer_timeout_s=30)
        for name, version in sorted(await triton.ready_models()):
            config = await triton.model_config(name, version)
            if "role" not in config.parameters:
                continue
            width = int(config.parameters["input_width"])
            height = int(config.parameters["input_height"])
            picture = probe_picture(width, height)[None]
            durations_ms = []
            for _ in range(MODEL_RUNS):
                began_s = time.perf_counter()
                await triton.infer(
                    name,
                    version,
                    picture,
                    input_name=config.parameters["input_name"],
                    output_names=list(config.outputs),
                )
                durations_ms.append((time.perf_counter() - began_s) * 1e3)
            cost_ms = statistics.median(durations_ms[WARM_UP:])
            lines.append(f"| {name}@{version} | {width} × {height} | {cost_ms:.1f} |")
        await triton.close()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--stored", type=int, default=200)
    parser.add_argument("--queries", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagesearch-products-") as folder:
        suite = Suite.start(
            SuiteSettings(
                port=free_ports(1)[0], data_dir=Path(folder), models_dir=prepared_models()
            )
        )
        try:
            with Client(suite.target, timeout_s=300) as client:
                parent = stock(client, options.data, options.stored)
                for label, queries in pictures(options.data, options.queries).items():
                    print(f"\n{label}: " + "\n".join(measure(client, parent, queries)))  # noqa: T201
        finally:
            suite.stop()
    print("\n" + "\n".join(asyncio.run(model_costs())))  # noqa: T201


if __name__ == "__main__":
    main()
