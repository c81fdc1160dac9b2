"""How stage one scales: candidates by words, by windows, by shapes, at 1,000 to 100,000 elements.

    python -m tests.benchmarks.elements.index                    # all three, in one library
    python -m tests.benchmarks.elements.index --ways words       # what one of them takes alone
    python -m tests.benchmarks.elements.index --ways windows
    python -m tests.benchmarks.elements.index --offline          # what they find, without a Catalog

The benchmark's own elements stand among windows of photos that show none of them (distractors.py).
What was described is kept in `.cache/elements`, so that a run goes on where it was stopped. Words
and shapes are sparse vectors, windows dense ones, searched through the index once it is built; in
the last way all are compared exactly, in this process. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import scipy.sparse  # type: ignore[import-untyped]

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.type.v1 import library_type_pb2
from imagesearch_services.embedding.elements.fusion import Candidate, find
from imagesearch_services.embedding.elements.shapes import FIRST_WORD
from imagesearch_services.embedding.elements.verification import Rules
from imagesearch_services.embedding.elements.vocabulary import SPACE, Vocabulary
from imagesearch_services.gateway.element_search import SHARE_OF_ONE_WINDOW
from imagesearch_services.gateway.elements import candidate_count
from tests.benchmarks import catalog as bench
from tests.benchmarks.elements import dataset
from tests.benchmarks.elements.entries import Asked, Stored, described, others
from tests.contract.catalog.support import Catalog

SIZES = (1_080, 10_000, 100_000)
LIBRARY = "index"
BATCH = 200
WAYS = ("words", "windows", "shapes")
DENSE_SPACE = "dense@1"
DIMENSIONS = 512
INDEXING_THRESHOLD = 5_000
POLL_S = 2.0


Nearest = Callable[[Asked, str, int], Awaitable[dict[str, bytes]]]
"""Gives so many candidates of a query by one way, with their features."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Which queries are asked, and how."""

    queries: Sequence[Asked]
    ways: Sequence[str]
    candidates: int
    """Of each way, where few are stored, as the Gateway counts them."""
    check_every: int
    """Queries of which one is checked, and told whether the right element comes first."""

    def limit(self, way: str, stored: int) -> int:
        return self.candidates if way == "shapes" else candidate_count(self.candidates, stored)


@dataclass(frozen=True, slots=True)
class Answers:
    """Figures of one size."""

    recall: Mapping[str, float]
    """Queries whose element is among the candidates, by way and by any."""
    right_first: float
    """Of the queries that were checked."""
    times_ms: Mapping[str, Sequence[float]]
    """By way, of each query."""

    def cells(self) -> str:
        shares = [*self.recall.values(), self.right_first]
        times = [
            f"{np.median(each):.0f}, {np.quantile(each, 0.95):.0f}"
            for each in self.times_ms.values()
        ]
        return " | ".join([*(f"{share:.3f}" for share in shares), *times])


def _entry(element: Stored, ways: Sequence[str]) -> pb.Entry:
    entry = pb.Entry(image_id=element.id, features=element.features)
    bag = element.bag
    if len(bag.words) and not {"words", "shapes"}.isdisjoint(ways):
        entry.sparse_vectors.add(
            space=SPACE, indices=bag.words.tolist(), values=bag.weights.tolist()
        )
    if "windows" in ways:
        entry.vectors.add(space=DENSE_SPACE, values=element.vector.astype("<f4").tobytes())
    return entry


async def create_library(catalog: Catalog, ways: Sequence[str]) -> None:
    spaces = [pb.VectorSpace(name=SPACE, sparse=True)]
    if "windows" in ways:
        spaces.append(pb.VectorSpace(name=DENSE_SPACE, dimensions=DIMENSIONS))
    await catalog.stub.CreateLibrary(
        pb.CreateLibraryRequest(
            library=pb.Library(
                library_id=LIBRARY, type=library_type_pb2.LIBRARY_TYPE_ELEMENT, spaces=spaces
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


async def indexed(catalog: Catalog) -> None:
    """Wait until the index of vectors is built."""
    while (await catalog.library(LIBRARY)).unindexed_vector_count > INDEXING_THRESHOLD:  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)


def _request(query: Asked, way: str, limit: int) -> pb.QueryEntriesRequest:
    request = pb.QueryEntriesRequest(
        library_id=LIBRARY,
        limit=limit,
        merged=True,
        include_entries=True,
        include_features=True,
    )
    if way == "windows":
        request.merged_hits_per_vector = math.ceil(limit * SHARE_OF_ONE_WINDOW)
        for vector in query.vectors:
            request.vectors.add(space=DENSE_SPACE, values=vector.astype("<f4").tobytes())
        return request
    bag = query.bag if way == "words" else query.shape_bag
    request.sparse_vector.space = SPACE
    request.sparse_vector.indices.extend(bag.words.tolist())
    request.sparse_vector.values.extend(bag.weights.tolist())
    return request


def by_catalog(catalog: Catalog) -> Nearest:
    async def nearest(query: Asked, way: str, limit: int) -> dict[str, bytes]:
        answer = await catalog.stub.QueryEntries(_request(query, way, limit))
        return {hit.entry.image_id: hit.entry.features for hit in answer.results[0].hits}

    return nearest


def by_comparing(stored: Sequence[Stored]) -> Nearest:
    """Compare with every element; words as Qdrant does, with the inverse document frequency."""
    ends = np.cumsum([0, *(len(one.bag.words) for one in stored)])
    words = np.concatenate([one.bag.words for one in stored])
    weights = np.concatenate([one.bag.weights for one in stored])
    width = max(FIRST_WORD, int(words.max()) + 1)
    bags = scipy.sparse.csr_matrix((weights, words, ends), (len(stored), width)).tocsc()
    counts = np.diff(bags.indptr)
    rarity = np.log1p((len(stored) - counts + 0.5) / (counts + 0.5))
    vectors = np.stack([one.vector for one in stored])

    async def nearest(query: Asked, way: str, limit: int) -> dict[str, bytes]:
        if way == "windows":
            scores = (query.vectors @ vectors.T).max(axis=0)
        else:
            bag = query.bag if way == "words" else query.shape_bag
            known = bag.words < width
            asked = bag.words[known]
            scores = bags[:, asked] @ (bag.weights[known] * rarity[asked])
        rows = np.argsort(-scores, kind="stable")[:limit]
        return {stored[row].id: stored[row].features for row in rows if scores[row] > 0}

    return nearest


async def ask(nearest: Nearest, asking: Asking, size: int) -> Answers:
    vocabulary = Vocabulary.load()
    found = dict.fromkeys((*asking.ways, "any"), 0)
    times_ms: dict[str, list[float]] = {way: [] for way in asking.ways}
    first = []
    for row, query in enumerate(asking.queries):
        candidates: dict[str, bytes] = {}
        for way in asking.ways:
            if way == "shapes" and not len(query.shape_bag.words):
                continue
            started_s = time.perf_counter()
            several = await nearest(query, way, asking.limit(way, size))
            times_ms[way].append((time.perf_counter() - started_s) * 1e3)
            found[way] += query.element in several
            candidates |= several
        found["any"] += query.element in candidates
        if row % asking.check_every == 0:
            first.append(_is_first(query, candidates, vocabulary))
    recall = {way: count / len(asking.queries) for way, count in found.items()}
    return Answers(recall, float(np.mean(first)), times_ms)


def _is_first(query: Asked, candidates: Mapping[str, bytes], vocabulary: Vocabulary) -> bool:
    several = [Candidate(name, features) for name, features in candidates.items()]
    hits = find(query.features, several, vocabulary, Rules())
    strangers = query.shown - {query.element}
    best = next((one.id for one in hits if one.id not in strangers), None)
    return best == query.element


async def measure(own: Sequence[Stored], asking: Asking, sizes: Sequence[int]) -> None:
    """Store and ask, through a Catalog of our own."""
    further, ways = others(sizes[-1] - len(own)), asking.ways
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"INDEXING_THRESHOLD": str(INDEXING_THRESHOLD)}
        async with bench.running(folder, **settings) as (catalog, pid):
            await create_library(catalog, ways)
            empty_mib = sum(bench.rss_mib(pid).values())
            await put(catalog, [_entry(one, ways) for one in own])
            stored = len(own)
            for size in sizes:
                while stored < size:
                    part = list(islice(further, min(BATCH, size - stored)))
                    await put(catalog, [_entry(one, ways) for one in part])
                    stored += len(part)
                await indexed(catalog)
                answers = await ask(by_catalog(catalog), asking, size)
                mib = sum(bench.rss_mib(pid).values()) - empty_mib
                disk_kb = bench.disk_bytes(folder) / size / 1e3
                memory_kb = mib * 2**20 / size / 1e3
                print(  # noqa: T201
                    f"| {size:,} | {answers.cells()} | {disk_kb:.1f} | {memory_kb:.1f} |",
                    flush=True,
                )


async def measure_exactly(own: Sequence[Stored], asking: Asking, sizes: Sequence[int]) -> None:
    stored = [*own, *others(sizes[-1] - len(own))]
    for size in sizes:
        answers = await ask(by_comparing(stored[:size]), asking, size)
        print(f"| {size:,} | {answers.cells()} |", flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--elements", type=int, default=1080)
    parser.add_argument("--queries", type=int, default=460)
    parser.add_argument("--negatives", type=int, default=520)
    parser.add_argument("--edition", choices=dataset.EDITIONS, default=dataset.REPORTED.name)
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=WAYS)
    parser.add_argument("--candidates", type=int, default=100, help="of each way")
    parser.add_argument("--check-every", type=int, default=3, help="queries whose first is told")
    parser.add_argument("--offline", action="store_true", help="without a Catalog, exactly")
    options = parser.parse_args()
    benchmark = dataset.prepare(
        options.elements,
        options.queries,
        options.negatives,
        edition=dataset.EDITIONS[options.edition],
    )
    own, queries = described(benchmark)
    asking = Asking(queries, options.ways, options.candidates, options.check_every)
    columns = ["elements", *asking.ways, "any", "right first"]
    columns += [f"{way}: p50, p95 ms" for way in asking.ways]
    if not options.offline:
        columns += ["kB on disk", "kB in memory"]
    print(f"| {' | '.join(columns)} |\n|{'---:|' * len(columns)}")  # noqa: T201
    measuring = measure_exactly if options.offline else measure
    asyncio.run(measuring(own, asking, options.sizes))


if __name__ == "__main__":
    main()
