"""Measure the speed of the whole suite against the bare path in one process.

    python -m tests.benchmarks.speed --stored 100000 --queries 200

Both sides search the same 100,000 stored vectors with the same pictures, alternating, in one run:

- the suite: Gateway → Embedding → Triton → Catalog, every hop over gRPC, through the public
  contract;
- the bare path: the suite's decoding and preprocessing, ONNX Runtime, and a query on a copy of the
  Catalog's Qdrant Edge folder, in this process.

The originals of the queries are stored, so that the whole picture matches. A separate row of the
report is for strangers (pictures whose original is not stored), for which the suite also searches
regions. The other vectors are stored through the Catalog's contract. Prints a Markdown report.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np
import numpy.typing as npt

from imagesearch.catalog.v1 import catalog_service_pb2 as catalog
from imagesearch.catalog.v1 import catalog_service_pb2_grpc as catalog_grpc
from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.gateway.v1 import image_search_service_pb2_grpc as gateway_grpc
from imagesearch.type.v1 import library_type_pb2, model_pb2, picture_pb2
from imagesearch_services.runner.suite import HOST, Suite, SuiteSettings, free_ports
from tests.benchmarks.bare import BarePath
from tests.triton_server import prepared_models

ROOT = Path(__file__).parents[2]
DEFAULT_PICTURES = ROOT.parent / "shared" / "data" / "garments"
PUT_BATCH = 500
CLIENTS = 8
ROUND_S = 8.0
ADD_BATCH = 32
INDEXING_THRESHOLD = 20_000
"""The Catalog's default: smaller libraries are searched without an index."""

T = TypeVar("T")
Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The pictures: stored and searched, searched but never stored, and added in timed batches."""

    stored: list[bytes]
    strangers: list[bytes]
    to_add: list[bytes]


def main() -> None:
    options = arguments()
    corpus = read_corpus(options.pictures, options.queries, options.adds)
    models_dir = prepared_models()
    with tempfile.TemporaryDirectory(prefix="imagesearch-speed-") as folder:
        suite = Suite.start(
            SuiteSettings(port=free_ports(1)[0], data_dir=Path(folder), models_dir=models_dir)
        )
        try:
            report(run(suite, corpus, options, Path(folder)))
        finally:
            suite.stop()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stored", type=int, default=100_000, help="vectors in the library")
    parser.add_argument("--queries", type=int, default=200, help="different query pictures")
    parser.add_argument("--adds", type=int, default=320, help="pictures added while timed")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each side")
    parser.add_argument("--pictures", type=Path, default=DEFAULT_PICTURES, help="folder of photos")
    return parser.parse_args()


def read_corpus(folder: Path, queries: int, adds: int) -> Corpus:
    files = sorted(folder.rglob("*.jpg"))
    strangers = max(20, queries // 5)
    needed = queries + strangers + adds
    if len(files) < needed:
        sys.exit(f"{folder} has {len(files)} photos, {needed} are required")
    step = len(files) // needed
    contents = iter([file.read_bytes() for file in files[::step][:needed]])
    return Corpus(
        stored=list(itertools.islice(contents, queries)),
        strangers=list(itertools.islice(contents, strangers)),
        to_add=list(contents),
    )


@dataclasses.dataclass
class Results:
    """The measurements; durations are in milliseconds unless the name has another unit."""

    stored: int
    import_per_s: float
    indexing_s: float
    suite_ms: list[float]
    bare_ms: list[float]
    stranger_ms: list[float]
    steps: dict[str, list[float]]
    bare_steps: dict[str, list[float]]
    suite_per_s: list[float]
    bare_per_s: list[float]
    suite_adds_per_s: list[float]
    bare_adds_per_s: list[float]
    peak_mib: dict[str, float]


def run(suite: Suite, corpus: Corpus, options: argparse.Namespace, folder: Path) -> Results:
    with grpc.insecure_channel(suite.target) as channel:
        gateway = gateway_grpc.ImageSearchServiceStub(channel)
        library = gateway.CreateLibrary(
            library_pb2.CreateLibraryRequest(
                library_id="speed",
                library=library_pb2.Library(type=library_type_pb2.LIBRARY_TYPE_WHOLE_IMAGE),
            )
        ).name
        add_all(gateway, library, corpus.stored, "query")
        import_per_s = fill(suite, options.stored - len(corpus.stored))
        indexing_s = wait_indexed(gateway, library, options.stored)
        bare = BarePath.over_copy(
            suite.settings.models_dir,
            catalog_folder(suite),
            folder / "bare",
        )
        results = Results(
            options.stored, import_per_s, indexing_s, [], [], [], {}, {}, [], [], [], [], {}
        )
        warm_up(gateway, library, bare, corpus)
        one_client(gateway, library, bare, corpus, results)
        for _ in range(options.rounds):
            results.suite_per_s.append(
                throughput(corpus.stored, lambda content: search(gateway, library, content))
            )
            results.bare_per_s.append(throughput(corpus.stored, bare.search_concurrently))
        for _ in range(options.rounds):
            adding(gateway, library, bare, corpus.to_add, results)
        results.peak_mib = peak_memory(suite)
        return results


def search(
    gateway: gateway_grpc.ImageSearchServiceStub, library: str, content: bytes
) -> search_pb2.SearchImagesResponse:
    return gateway.SearchImages(
        search_pb2.SearchImagesRequest(
            parent=library, image=picture_pb2.ImageContent(content=content)
        )
    )


def add_all(
    gateway: gateway_grpc.ImageSearchServiceStub,
    library: str,
    contents: Sequence[bytes],
    prefix: str,
) -> None:
    for first in range(0, len(contents), ADD_BATCH):
        answer = gateway.BatchAddImages(
            image_pb2.BatchAddImagesRequest(
                parent=library,
                requests=[
                    image_pb2.AddImageRequest(
                        image_id=f"{prefix}-{first + offset}",
                        image=picture_pb2.ImageContent(content=content),
                    )
                    for offset, content in enumerate(contents[first : first + ADD_BATCH])
                ],
            )
        )
        failed = [result.error for result in answer.results if result.HasField("error")]
        if failed:
            sys.exit(f"adding failed: {failed[0]}")


def fill(suite: Suite, count: int) -> float:
    """Store vectors through the Catalog's contract; return entries per second.

    The vectors are sampled around 2,000 centers, so that they form clusters like those of pictures.
    """
    random = np.random.default_rng(11)
    with grpc.insecure_channel(f"{HOST}:{suite.ports.catalog}") as channel:
        stub = catalog_grpc.CatalogServiceStub(channel)
        library = stub.GetLibrary(catalog.GetLibraryRequest(library_id="speed"))
        spaces = [(space.name, space.dimensions) for space in library.spaces]
        centers = {name: unit(random.standard_normal((2000, size))) for name, size in spaces}
        spent_s = 0.0
        for first in range(0, count, PUT_BATCH):
            size = min(PUT_BATCH, count - first)
            batch = {
                name: unit(
                    centers[name][random.integers(0, 2000, size)]
                    + 1.2 * random.standard_normal((size, dimensions)) / np.sqrt(dimensions)
                )
                for name, dimensions in spaces
            }
            request = catalog.PutEntriesRequest(
                library_id="speed",
                entries=[
                    catalog.Entry(
                        image_id=f"fill-{first + row}",
                        vectors=[
                            model_pb2.Vector(space=name, values=vectors[row].tobytes())
                            for name, vectors in batch.items()
                        ],
                    )
                    for row in range(size)
                ],
            )
            began_s = time.perf_counter()
            answer = stub.PutEntries(request)
            spent_s += time.perf_counter() - began_s
            for result in answer.results:
                if result.HasField("error"):
                    sys.exit(f"storing failed: {result.error}")
    return count / spent_s


def unit(vectors: npt.NDArray[np.float64]) -> Floats:
    """Scale rows to unit length, float32."""
    scaled: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f4")
    return scaled


def wait_indexed(gateway: gateway_grpc.ImageSearchServiceStub, library: str, stored: int) -> float:
    """Wait until the index covers four fifths of the vectors; return the duration in seconds."""
    began_s = time.perf_counter()
    while stored >= INDEXING_THRESHOLD:
        now = gateway.GetLibrary(library_pb2.GetLibraryRequest(name=library))
        if now.unindexed_vector_count <= stored // 5:
            break
        time.sleep(1)
    return time.perf_counter() - began_s


def catalog_folder(suite: Suite) -> Path:
    """Return the folder of the library's collection."""
    with grpc.insecure_channel(f"{HOST}:{suite.ports.catalog}") as channel:
        library = catalog_grpc.CatalogServiceStub(channel).GetLibrary(
            catalog.GetLibraryRequest(library_id="speed")
        )
    return suite.settings.data_dir / "catalog" / "libraries" / library.uid


def warm_up(
    gateway: gateway_grpc.ImageSearchServiceStub, library: str, bare: BarePath, corpus: Corpus
) -> None:
    for content in corpus.stored[:20]:
        answer = search(gateway, library, content)
        expected = bare.search(content)
        best = answer.matches[0].image.image_id if answer.matches else "nothing"
        if uuid_of(best) != expected:
            sys.exit(
                f"the suite finds {best}, but the bare path finds another picture, so that their "
                "speeds cannot be compared"
            )


def uuid_of(image_id: str) -> str:
    from imagesearch_services.catalog.model import entry_uid  # noqa: PLC0415

    return str(uuid.UUID(bytes=entry_uid(image_id)))


def one_client(
    gateway: gateway_grpc.ImageSearchServiceStub,
    library: str,
    bare: BarePath,
    corpus: Corpus,
    results: Results,
) -> None:
    """Search with one client; both sides alternate, so that other load affects both equally."""
    for content in corpus.stored:
        duration_ms, answer = timed(lambda content=content: search(gateway, library, content))
        results.suite_ms.append(duration_ms)
        for timing in answer.timings:
            results.steps.setdefault(timing.step, []).append(timing.duration_ms)
        duration_ms, _ = timed(lambda content=content: bare.search(content))
        results.bare_ms.append(duration_ms)
        for step, step_ms in bare.last_steps_ms.items():
            results.bare_steps.setdefault(step, []).append(step_ms)
    for content in corpus.strangers:
        results.stranger_ms.append(
            timed(lambda content=content: search(gateway, library, content))[0]
        )


def timed(action: Callable[[], T]) -> tuple[float, T]:
    began_s = time.perf_counter()
    result = action()
    return (time.perf_counter() - began_s) * 1e3, result


def throughput(contents: Sequence[bytes], action: Callable[[bytes], object]) -> float:
    """Return answers per second of `CLIENTS` clients over `ROUND_S` seconds."""
    source: Iterator[bytes] = itertools.cycle(contents)
    lock = threading.Lock()
    end_s = time.perf_counter() + ROUND_S

    def client(_: int) -> int:
        done = 0
        while time.perf_counter() < end_s:
            with lock:
                content = next(source)
            action(content)
            done += 1
        return done

    began_s = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        total = sum(pool.map(client, range(CLIENTS)))
    return total / (time.perf_counter() - began_s)


def adding(
    gateway: gateway_grpc.ImageSearchServiceStub,
    library: str,
    bare: BarePath,
    to_add: Sequence[bytes],
    results: Results,
) -> None:
    size = len(to_add)
    prefix = f"round-{len(results.suite_adds_per_s)}"
    duration_ms, _ = timed(lambda: add_all(gateway, library, to_add, prefix))
    results.suite_adds_per_s.append(size / duration_ms * 1e3)
    duration_ms, _ = timed(lambda: bare.add(to_add, ADD_BATCH))
    results.bare_adds_per_s.append(size / duration_ms * 1e3)


def peak_memory(suite: Suite) -> dict[str, float]:
    """Return the peak resident memory of each process and its children, MiB."""
    return {name: peak_mib(process.pid) for name, process in suite.processes.items()}


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    own = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(own.split()[1]) / 1024 + sum(peak_mib(int(child)) for child in children)


def report(results: Results) -> None:
    suite_ms, bare_ms = statistics.median(results.suite_ms), statistics.median(results.bare_ms)
    suite_s = statistics.median(results.suite_per_s)
    bare_s = statistics.median(results.bare_per_s)
    adds = statistics.median(results.suite_adds_per_s)
    bare_adds = statistics.median(results.bare_adds_per_s)
    lines = [
        f"{results.stored:,} stored pictures; suite and bare path alternating in one run.",
        "",
        "| measure | suite | bare path | ratio |",
        "|---|---|---|---|",
        (
            f"| search, 1 client, p50 | {suite_ms:.1f} ms | {bare_ms:.1f} ms "
            f"| {suite_ms / bare_ms:.2f} × |"
        ),
        (
            f"| search, 1 client, p95 | {p95(results.suite_ms):.1f} ms "
            f"| {p95(results.bare_ms):.1f} ms "
            f"| {p95(results.suite_ms) / p95(results.bare_ms):.2f} × |"
        ),
        (
            f"| search, {CLIENTS} clients | {suite_s:.1f} /s | {bare_s:.1f} /s "
            f"| {bare_s / suite_s:.2f} × |"
        ),
        (
            "| search of a stranger (regions too), p50 "
            f"| {statistics.median(results.stranger_ms):.1f} ms | – | – |"
        ),
        (
            f"| adding, batches of {ADD_BATCH} | {adds:.1f} /s | {bare_adds:.1f} /s "
            f"| {adds / bare_adds:.0%} |"
        ),
        "",
        (
            f"Import of vectors through the Catalog: {results.import_per_s:,.0f} entries/s; "
            f"the index was ready {results.indexing_s:.0f} s later."
        ),
        "",
        "| step of a search (median) | suite, ms | bare path, ms |",
        "|---|---|---|",
        *(
            f"| {step} | {median_ms(results.steps, step)} | {median_ms(results.bare_steps, step)} |"
            for step in sorted(results.steps.keys() | results.bare_steps.keys())
        ),
        "",
        "| process | peak resident memory |",
        "|---|---|",
        *(f"| {name} | {mib:,.0f} MiB |" for name, mib in results.peak_mib.items()),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def p95(values_ms: Sequence[float]) -> float:
    return statistics.quantiles(values_ms, n=20)[-1]


def median_ms(steps: dict[str, list[float]], step: str) -> str:
    return f"{statistics.median(steps[step]):.2f}" if step in steps else "–"


if __name__ == "__main__":
    main()
