"""How stage one scales: elements as visual words in the Catalog, at 1,000, 10,000 and 100,000.

    python -m tests.benchmarks.elements.index               # words
    python -m tests.benchmarks.elements.index --dense 512   # what vectors of windows cost

The benchmark's own elements stand among distractors: squares cut out of photos that show none of
them. The features of a photo are taken once, at the size that its crops are stored at, and cut by
box; they are kept in `.cache/elements/distractors`, so that a run goes on where it was stopped.
Prints Markdown.

What vectors cost is measured with drawn ones: time, disk and memory do not depend on what a vector
means. What they find is measured elsewhere, with the models that make them.
"""

from __future__ import annotations

import argparse
import asyncio
import pickle
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.type.v1 import library_type_pb2
from imagesearch_services.embedding.elements import features as features_module
from imagesearch_services.embedding.elements import vocabulary as vocabulary_module
from imagesearch_services.embedding.elements.features import (
    QUERY_SIDE_PX,
    STORED_LIMITS,
    STORED_SIDE_PX,
    Bag,
    Keypoints,
    QueryFeatures,
    StoredElement,
    describe_element,
    describe_texture,
    may_be_inverted,
)
from imagesearch_services.embedding.elements.fusion import evidence
from imagesearch_services.embedding.elements.verification import Rules, verify
from imagesearch_services.embedding.elements.vocabulary import FILE, SPACE, Vocabulary
from imagesearch_services.embedding.local_features import ExtractionLimits, extract
from tests.benchmarks import catalog as bench
from tests.benchmarks.copies.dataset import all_names, data_folder
from tests.benchmarks.elements import dataset
from tests.benchmarks.elements.offline import CANDIDATES, code_hash, in_parts, view
from tests.contract.catalog.support import Catalog

SIZES = (1_080, 10_000, 100_000)
PHOTO_SIDE_PX = 1000
PHOTO_LIMITS = ExtractionLimits(max_features=2500, border_px=24)
CROPS_A_PHOTO = 100
PHOTOS_A_FILE = 25
CROP_SIDES_PX = (240, STORED_SIDE_PX)
LIBRARY = "index"
BATCH = 200
DENSE_SPACE = "windows@1"
DENSE_WINDOWS = 30
"""Of a query, each a search of its own."""

Distractor = tuple[bytes, npt.NDArray[np.int64]]
"""Features and words; all words of an element weigh the same."""


@dataclass(frozen=True, slots=True)
class Row:
    """Figures of one size."""

    elements: int
    recall: float
    """Queries whose element is among the candidates."""
    right_first: float
    """Of the queries that were checked."""
    p50_ms: float
    p95_ms: float
    disk_bytes: float
    """Of one element."""
    memory_bytes: float
    """Of one element, beside what the empty Catalog takes."""


def distractors(count: int) -> Iterator[Distractor]:
    """Give features of crops of photos that show no stored element."""
    vocabulary, data = Vocabulary.load(), data_folder()
    names = all_names(data)
    garments = [name for name in names if name.startswith("garments")][540:-120]
    shelves = [name for name in names if name.startswith("grocery/shelf")]
    chosen = [*shelves, *garments]
    folder = dataset.CACHE / "distractors"
    folder.mkdir(parents=True, exist_ok=True)
    given = 0
    for start in range(0, len(chosen), PHOTOS_A_FILE):
        file = folder / f"{start:05d}.pkl"
        if not file.exists():
            several = [
                crop
                for name in chosen[start : start + PHOTOS_A_FILE]
                for crop in _crops(data / name, vocabulary)
            ]
            file.write_bytes(pickle.dumps(several))
        for one in pickle.loads(file.read_bytes()):  # noqa: S301  # our own file
            if given == count:
                return
            given += 1
            yield one
    if given < count:
        raise SystemExit(f"the photos give but {given} distractors")


def _crops(photo: Path, vocabulary: Vocabulary) -> Iterator[Distractor]:
    pixels = dataset.read_pixels(photo)
    factor = PHOTO_SIDE_PX / max(pixels.shape[:2])
    grey = cv2.cvtColor(cv2.resize(pixels, None, fx=factor, fy=factor), cv2.COLOR_RGB2GRAY)
    found = extract(np.asarray(grey, np.uint8), PHOTO_LIMITS)
    projected = vocabulary.project(found.descriptors)
    codes = vocabulary.encode(projected)
    words, negative_words = (
        vocabulary.words(one, 1)[0][:, 0] for one in (projected, vocabulary.inverted(projected))
    )
    rng = dataset.random_source("distractor", photo.name)
    height, width = grey.shape
    for _ in range(CROPS_A_PHOTO):
        wide, high = (min(limit, rng.randint(*CROP_SIDES_PX)) for limit in (width, height))
        left, top = rng.randint(0, width - wide), rng.randint(0, height - high)
        x, y = found.points[:, 0] - left, found.points[:, 1] - top
        inside = (x >= 0) & (y >= 0) & (x < wide) & (y < high)
        # Strongest first, as in elements that are stored alone.
        rows = np.flatnonzero(inside)[: STORED_LIMITS.max_features]
        points = found.points[rows] - np.array((left, top), np.float32)
        keypoints = Keypoints(points, found.sizes[rows], found.angles[rows])
        element = StoredElement(wide, high, keypoints, codes[rows])
        several = [words[rows]]
        if may_be_inverted(len(rows)):
            several.append(negative_words[rows])
        yield element.to_bytes(), np.unique(np.concatenate(several))


def _entry(image_id: str, features: bytes, bag: Bag) -> pb.Entry:
    entry = pb.Entry(image_id=image_id, features=features)
    if len(bag.words):
        entry.sparse_vectors.add(
            space=SPACE, indices=bag.words.tolist(), values=bag.weights.tolist()
        )
    return entry


def described(
    benchmark: dataset.Benchmark,
) -> tuple[list[tuple[StoredElement, Bag]], list[tuple[QueryFeatures, Bag]]]:
    """Describe elements and every second query, by their local features alone."""
    vocabulary = Vocabulary.load()
    key = code_hash((features_module, vocabulary_module), FILE)
    folder = dataset.CACHE / f"index-{benchmark.folder.name}-{key}"

    def element(name: str) -> tuple[StoredElement, Bag]:
        return describe_element(view(benchmark, name, STORED_SIDE_PX), vocabulary)

    def query(name: str) -> tuple[QueryFeatures, Bag]:
        return describe_texture(view(benchmark, name, QUERY_SIDE_PX), vocabulary)

    return (
        in_parts(folder / "elements", element, [one.file for one in benchmark.elements]),
        in_parts(folder / "queries", query, [one.file for one in benchmark.queries[::2]]),
    )


async def create_library(catalog: Catalog, space: pb.VectorSpace) -> None:
    await catalog.stub.CreateLibrary(
        pb.CreateLibraryRequest(
            library=pb.Library(
                library_id=LIBRARY,
                type=library_type_pb2.LIBRARY_TYPE_ELEMENT,
                spaces=[space],
            )
        )
    )


async def put(catalog: Catalog, entries: Sequence[pb.Entry]) -> None:
    for start in range(0, len(entries), BATCH):
        answer = await catalog.stub.PutEntries(
            pb.PutEntriesRequest(library_id=LIBRARY, entries=entries[start : start + BATCH])
        )
        if any(one.HasField("error") for one in answer.results):
            raise SystemExit(f"not stored: {answer.results}")


class Queries:
    """Asks, and remembers what was checked: a larger library brings few new candidates."""

    def __init__(
        self,
        benchmark: dataset.Benchmark,
        described: Sequence[tuple[QueryFeatures, Bag]],
        step: int,
    ) -> None:
        self._asked = [
            (query.appearances[0].element, {one.element for one in query.appearances}, features)
            for query, features in zip(benchmark.queries[::2], described, strict=True)
            if query.appearances
        ]
        self._checked = set(range(0, len(self._asked), step))
        self._evidence: dict[tuple[int, str], float] = {}
        self._vocabulary = Vocabulary.load()

    async def ask(self, catalog: Catalog) -> tuple[float, float, list[float]]:
        """Give recall, how many are right first, and how long each took, in ms."""
        found, first, times_ms = 0, [], []
        for row, (element, shown, (_, bag)) in enumerate(self._asked):
            request = pb.QueryEntriesRequest(
                library_id=LIBRARY,
                sparse_vector={
                    "space": SPACE,
                    "indices": bag.words.tolist(),
                    "values": bag.weights.tolist(),
                },
                limit=CANDIDATES,
                include_entries=True,
                include_features=True,
            )
            started_s = time.perf_counter()
            answer = await catalog.stub.QueryEntries(request)
            times_ms.append((time.perf_counter() - started_s) * 1e3)
            candidates = {hit.entry.image_id: hit.entry.features for hit in answer.results[0].hits}
            found += element in candidates
            if row in self._checked:
                first.append(self._is_first(row, element, shown, candidates))
        return found / len(self._asked), float(np.mean(first)), times_ms

    def _is_first(
        self, row: int, element: str, shown: set[str], candidates: dict[str, bytes]
    ) -> bool:
        new = [name for name in candidates if (row, name) not in self._evidence]
        stored = [
            StoredElement.from_bytes(
                candidates[name], self._vocabulary.code_bytes, field="features"
            )
            for name in new
        ]
        weighed = dict.fromkeys(new, -np.inf)
        query = self._asked[row][2][0]
        for one in verify(query, stored, self._vocabulary, Rules()):
            weighed[new[one.row]] = evidence(stored[one.row], one, None)
        self._evidence |= {(row, name): value for name, value in weighed.items()}
        several = {name: self._evidence[row, name] for name in candidates}
        right = several.get(element, -np.inf)
        others = [value for name, value in several.items() if name not in shown]
        return bool(right > max(others, default=-np.inf))


async def measure_words(benchmark: dataset.Benchmark, sizes: Sequence[int], step: int) -> None:
    stored_elements, asked = described(benchmark)
    own = [
        _entry(element.id, features.to_bytes(), bag)
        for element, (features, bag) in zip(benchmark.elements, stored_elements, strict=True)
    ]
    queries = Queries(benchmark, asked, step)
    others = distractors(sizes[-1] - len(own))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with bench.running(folder, INDEXING_THRESHOLD="0") as (catalog, pid):
            await create_library(catalog, pb.VectorSpace(name=SPACE, sparse=True))
            empty_mib = sum(bench.rss_mib(pid).values())
            await put(catalog, own)
            stored = len(own)
            for size in sizes:
                while stored < size:
                    entries: list[pb.Entry] = []
                    for _ in range(min(BATCH, size - stored)):
                        features, words = next(others)
                        weights = np.full(len(words), 1 / max(len(words), 10), np.float32)
                        entries.append(
                            _entry(f"other-{stored + len(entries)}", features, Bag(words, weights))
                        )
                    await put(catalog, entries)
                    stored += len(entries)
                recall, first, times_ms = await queries.ask(catalog)
                mib = sum(bench.rss_mib(pid).values()) - empty_mib
                row = Row(
                    size,
                    recall,
                    first,
                    float(np.median(times_ms)),
                    float(np.quantile(times_ms, 0.95)),
                    bench.disk_bytes(folder) / size,
                    mib * 2**20 / size,
                )
                print(line(row), flush=True)  # noqa: T201


async def measure_dense(sizes: Sequence[int], dimensions: int) -> None:
    """Store drawn vectors, one an element, and ask with the windows of a query."""
    fixed = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with bench.running(folder) as (catalog, pid):
            space = pb.VectorSpace(name=DENSE_SPACE, dimensions=dimensions)
            await create_library(catalog, space)
            empty_mib = sum(bench.rss_mib(pid).values())
            stored = 0
            for size in sizes:
                while stored < size:
                    vectors = bench.draw(min(BATCH, size - stored), stored + 1)[:, :dimensions]
                    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                    await put(
                        catalog,
                        [
                            pb.Entry(
                                image_id=f"element-{stored + row}",
                                vectors=[{"space": DENSE_SPACE, "values": vector.tobytes()}],
                            )
                            for row, vector in enumerate(vectors)
                        ],
                    )
                    stored += len(vectors)
                times_ms = []
                for _ in range(50):
                    windows = bench.draw(DENSE_WINDOWS, int(fixed.integers(1 << 30)))
                    windows = windows[:, :dimensions]
                    windows /= np.linalg.norm(windows, axis=1, keepdims=True)
                    request = pb.QueryEntriesRequest(
                        library_id=LIBRARY,
                        vectors=[
                            {"space": DENSE_SPACE, "values": one.tobytes()} for one in windows
                        ],
                        limit=10,
                    )
                    started_s = time.perf_counter()
                    await catalog.stub.QueryEntries(request)
                    times_ms.append((time.perf_counter() - started_s) * 1e3)
                mib = sum(bench.rss_mib(pid).values()) - empty_mib
                p50_ms, p95_ms = np.quantile(times_ms, [0.5, 0.95])
                disk_kb = bench.disk_bytes(folder) / size / 1e3
                memory_kb = mib * 2**20 / size / 1e3
                cells = f"{p50_ms:.0f} | {p95_ms:.0f} | {disk_kb:.1f} | {memory_kb:.1f}"
                print(f"| {size:,} | {cells} |", flush=True)  # noqa: T201


def line(row: Row) -> str:
    return (
        f"| {row.elements:,} | {row.recall:.3f} | {row.right_first:.3f} | {row.p50_ms:.0f} | "
        f"{row.p95_ms:.0f} | {row.disk_bytes / 1e3:.1f} | {row.memory_bytes / 1e3:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--elements", type=int, default=1080)
    parser.add_argument("--queries", type=int, default=460)
    parser.add_argument("--negatives", type=int, default=520)
    parser.add_argument("--edition", choices=dataset.EDITIONS, default=dataset.REPORTED.name)
    parser.add_argument("--check-every", type=int, default=3, help="queries whose first is told")
    parser.add_argument("--dense", type=int, default=0, help="dimensions of vectors instead")
    options = parser.parse_args()
    if options.dense:
        print("| elements | p50, ms | p95, ms | kB on disk | kB in memory |")  # noqa: T201
        print("|---:|---:|---:|---:|---:|")  # noqa: T201
        asyncio.run(measure_dense(options.sizes, options.dense))
        return
    benchmark = dataset.prepare(
        options.elements,
        options.queries,
        options.negatives,
        edition=dataset.EDITIONS[options.edition],
    )
    print(  # noqa: T201
        "| elements | among 100 | right first | p50, ms | p95, ms | kB on disk | kB in memory |\n"
        "|---:|---:|---:|---:|---:|---:|---:|"
    )
    asyncio.run(measure_words(benchmark, options.sizes, options.check_every))


if __name__ == "__main__":
    main()
