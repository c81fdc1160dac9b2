"""What does it cost a product search to look for the subject?

    python -m tests.benchmarks.products.speed

Street photos that the parser did not learn from, and catalogue pictures, each searched in turns,
in one run, through the whole suite with one client:

- without detection (the whole picture);
- with detection;
- with detection as two calls, DetectSubjects and then a search with the main subject's box: what
  it would cost if one call could not do both.

Then each model alone on Triton, one picture at a time. Prints a Markdown report.
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
from imagesearch_services.embedding.probe import probe_picture
from imagesearch_services.embedding.triton import TritonClient
from imagesearch_services.models.common.pictures import all_names, data_folder
from imagesearch_services.models.product.splits import parser_split
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.triton_server import prepared_models, running_triton

ADD_BATCH = 20
MODEL_RUNS = 40
WARM_UP = 5
STEPS = ("embed:decode", "embed:find_subjects", "embed:preprocess", "embed:infer", "embed", "query")

Way = Callable[[Client, str, bytes], SearchImagesResponse]


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


WAYS: dict[str, Way] = {
    "without": without,
    "with detection": with_detection,
    "in two calls": in_two_calls,
}


def pictures(data: Path, count: int) -> dict[str, list[bytes]]:
    """Read what is searched with."""
    street = [f"street/photos/{name}.jpg" for name in parser_split().street]
    shop = [name for name in all_names(data) if name.startswith("grocery/catalogue/")]
    return {
        "street photos": [(data / name).read_bytes() for name in street[:count]],
        "catalogue pictures": [(data / name).read_bytes() for name in shop[:count]],
    }


def stock(client: Client, data: Path, count: int) -> str:
    """Make a library of garments and give its name."""
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
        answer = client.batch_add_images(parent=library.name, requests=adds)
        if answer.added_count != len(adds):
            raise SystemExit("not all pictures could be added")
    return library.name


def measure(client: Client, parent: str, queries: Sequence[bytes]) -> Iterator[str]:
    """Search with each picture in every way, one after another, and tell the medians."""
    took_ms: dict[str, list[float]] = {way: [] for way in WAYS}
    steps_ms: dict[tuple[str, str], list[float]] = {}
    subjects = []
    for row, picture in enumerate([*queries[:WARM_UP], *queries]):
        for way, search in WAYS.items():
            began_s = time.perf_counter()
            answer = search(client, parent, picture)
            if row < WARM_UP:
                continue
            took_ms[way].append((time.perf_counter() - began_s) * 1e3)
            for timing in answer.timings:
                steps_ms.setdefault((way, timing.step), []).append(timing.duration_ms)
            if search is with_detection:
                subjects.append(len(answer.subjects))
    median = {way: statistics.median(values) for way, values in took_ms.items()}
    yield f"{len(queries)} pictures, {statistics.mean(subjects):.1f} subjects each"
    yield ""
    yield "| step, median ms | " + " | ".join(WAYS) + " |"
    yield "|---|" + "---:|" * len(WAYS)
    for step in STEPS:
        cells = [
            f"{statistics.median(steps_ms[way, step]):.1f}" if (way, step) in steps_ms else "–"
            for way in WAYS
        ]
        yield f"| {step} | {' | '.join(cells)} |"
    yield "| **all, at the client** | " + " | ".join(f"{median[way]:.1f}" for way in WAYS) + " |"
    ratios = [f"{median[way] / median['without']:.2f} ×" for way in WAYS]
    yield f"| times a search without | {' | '.join(ratios)} |"


async def model_costs() -> list[str]:
    """Run each model alone, one picture at a time."""
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
            took_ms = []
            for _ in range(MODEL_RUNS):
                began_s = time.perf_counter()
                await triton.infer(
                    name,
                    version,
                    picture,
                    input_name=config.parameters["input_name"],
                    output_names=list(config.outputs),
                )
                took_ms.append((time.perf_counter() - began_s) * 1e3)
            cost_ms = statistics.median(took_ms[WARM_UP:])
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
