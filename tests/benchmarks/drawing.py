"""Measure the cost of a drawing in addition to the search that it shows.

    python -m tests.benchmarks.drawing --stored 600 --queries 40

Searches every query without and with a drawing, alternating, through the public contract. Queries
are edited copies, for which the whole picture matches, and strangers (pictures whose original is
not stored), for which the suite also searches regions. Prints a Markdown report with medians: the
time, the processor time of all processes of the suite, which other load on the machine affects
less, and the relative cost of the drawing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from imagesearch.client import AnnotationOptions, Client, LibraryType
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.triton_server import prepared_models

ROOT = Path(__file__).parents[2]
DEFAULT_PICTURES = ROOT.parent / "shared" / "data" / "garments"
KINDS = {
    "JPEG, with 5 matches": AnnotationOptions(media_type="image/jpeg", match_count=5),
    "JPEG, query alone": AnnotationOptions(media_type="image/jpeg"),
    "JPEG, with 5 matches, 640 px": AnnotationOptions(
        media_type="image/jpeg", match_count=5, max_side_px=640
    ),
    "PNG, with 5 matches": AnnotationOptions(media_type="image/png", match_count=5),
    "WebP, with 5 matches": AnnotationOptions(media_type="image/webp", match_count=5),
}


def main() -> None:
    options = arguments()
    files = sorted(options.pictures.rglob("*.jpg"))[: options.stored + options.strangers]
    if len(files) < options.stored + options.strangers:
        raise SystemExit(
            f"{options.pictures} has {len(files)} photos, "
            f"{options.stored + options.strangers} are required"
        )
    stored = [file.read_bytes() for file in files[: options.stored]]
    queries = {
        "a stored picture, edited": [edited(picture) for picture in stored[: options.queries]],
        "a stranger": [file.read_bytes() for file in files[options.stored :]],
    }
    with tempfile.TemporaryDirectory(prefix="imagesearch-drawing-") as folder:
        suite = Suite.start(
            SuiteSettings(
                port=free_ports(1)[0], data_dir=Path(folder), models_dir=prepared_models()
            )
        )
        try:
            with Client(suite.target) as client:
                fill(client, stored)
                report(
                    {
                        name: measure(suite, client, pictures)
                        for name, pictures in queries.items()
                        if pictures
                    }
                )
        finally:
            suite.stop()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, default=DEFAULT_PICTURES)
    parser.add_argument("--stored", type=int, default=600)
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument(
        "--strangers", type=int, default=8, help="queries that are not stored; each takes seconds"
    )
    return parser.parse_args()


def edited(content: bytes) -> bytes:
    """Crop a little and mirror, so that no query is identical to a stored picture."""
    with Image.open(io.BytesIO(content)) as opened:
        picture = opened.convert("RGB")
    width, height = picture.size
    picture = picture.crop((width // 20, height // 20, width, height))
    buffer = io.BytesIO()
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def fill(client: Client, stored: Sequence[bytes]) -> None:
    client.create_library(library_id="drawing", library_type=LibraryType.LIBRARY_TYPE_WHOLE_IMAGE)
    for number, content in enumerate(stored):
        client.add_image(parent="libraries/drawing", image_id=f"{number:05}.jpg", image=content)


@dataclass(frozen=True)
class Cost:
    """Cost of a search."""

    wall_ms: float
    processor_ms: float


Pairs = dict[str, list[tuple[Cost, Cost]]]
"""Costs without and with a drawing, by kind of drawing."""


def measure(suite: Suite, client: Client, queries: Sequence[bytes]) -> Pairs:
    """Time every query without and with each kind of drawing, alternating."""
    groups = {process.pid for process in suite.processes.values()}

    def search(content: bytes, annotation: AnnotationOptions | None) -> None:
        answer = client.search_images(
            parent="libraries/drawing",
            image=content,
            annotation=annotation,
            max_false_positive_rate=1,  # strangers have matches to draw, too
        )
        if annotation and not answer.annotated_image:
            raise RuntimeError(f"the answer has no drawing: {answer.warnings}")

    def cost(content: bytes, annotation: AnnotationOptions | None) -> Cost:
        before_ms, began_s = processor_ms(groups), time.perf_counter()
        search(content, annotation)
        wall_ms = (time.perf_counter() - began_s) * 1e3
        return Cost(wall_ms, processor_ms(groups) - before_ms)

    search(queries[0], None)
    costs: Pairs = {name: [] for name in KINDS}
    for content in queries:
        for name, annotation in KINDS.items():
            costs[name].append((cost(content, None), cost(content, annotation)))
    return costs


def processor_ms(groups: AbstractSet[int]) -> float:
    """Return the processor time of all threads of process groups (proc(5), `schedstat`)."""
    used_ns = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # the process or thread has ended
            if os.getpgid(int(process.name)) in groups:
                for thread in process.glob("task/*/schedstat"):
                    used_ns += int(thread.read_text().split()[0])
    return used_ns / 1e6


def report(results: dict[str, Pairs]) -> None:
    lines = [
        "| query | drawing | search, ms | with drawing, ms | cost | processor, ms | with | cost |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for query, kinds in results.items():
        for kind, pairs in kinds.items():
            plain, drawn = (
                statistics.median(cost.wall_ms for cost in column)
                for column in zip(*pairs, strict=True)
            )
            ratio = statistics.median(after.wall_ms / before.wall_ms for before, after in pairs)
            plain_cpu, drawn_cpu = (
                statistics.median(cost.processor_ms for cost in column)
                for column in zip(*pairs, strict=True)
            )
            more_cpu = statistics.median(
                after.processor_ms / before.processor_ms for before, after in pairs
            )
            lines.append(
                f"| {query} | {kind} | {plain:.1f} | {drawn:.1f} | {ratio - 1:+.0%} "
                f"| {plain_cpu:.0f} | {drawn_cpu:.0f} | {more_cpu - 1:+.0%} |"
            )
    sys.stdout.write("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
