"""Measure how the retrieval of candidates scales from 1,000 to 100,000 elements.

    python -m tests.benchmarks.elements.index                     # all sources, in one library
    python -m tests.benchmarks.elements.index --sources words     # a single source
    python -m tests.benchmarks.elements.index --sources windows
    python -m tests.benchmarks.elements.index --offline           # recall only, without a Catalog

The sources of candidates are words, shapes and windows. As in the Gateway, retrieval queries all
sources concurrently and fetches the features of their candidates. The library contains the elements
of the benchmark and distractors (see `distractors`). Descriptions are cached in `.cache/elements`;
an interrupted run resumes. Words and shapes are sparse vectors. Windows are dense vectors, which
are searched once their index is built. With `--offline` a query is compared exactly with all
elements in this process. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import grpc.aio
import numpy as np
import scipy.sparse  # type: ignore[import-untyped]

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.type.v1 import library_type_pb2
from imagesearch_services.catalog.edge.files import disk_bytes
from imagesearch_services.catalog.model import entry_uid
from imagesearch_services.common.types import SparseVector, Vector
from imagesearch_services.embedding.elements.fusion import Candidate, find_elements
from imagesearch_services.embedding.elements.rules import Rules
from imagesearch_services.embedding.elements.shapes import FIRST_WORD
from imagesearch_services.embedding.elements.vocabulary import SPACE, Vocabulary
from imagesearch_services.gateway.clients.catalog import CatalogClient
from imagesearch_services.gateway.model import FeaturesHit
from imagesearch_services.gateway.ports import CandidatesQuery
from imagesearch_services.gateway.search.candidates import (
    MAX_SHARE_PER_WINDOW,
    candidate_count,
    load_candidates,
)
from imagesearch_services.gateway.settings import SearchSettings
from imagesearch_services.models.elements import dataset
from tests.benchmarks import catalog as bench
from tests.benchmarks.elements.entries import (
    DescribedQuery,
    StoredEntry,
    describe_benchmark,
    distractor_entries,
)
from tests.contract.catalog.support import Catalog

SIZES = (1_080, 10_000, 100_000)
LIBRARY = "index"
BATCH = 200
SOURCES = ("words", "windows", "shapes")
DENSE_SPACE = "dense@2"
GATEWAY = SearchSettings()
DIMENSIONS = 512
INDEXING_THRESHOLD = 5_000
"""Number of unindexed vectors at which the Catalog builds an index."""
POLL_S = 2.0
TIMEOUT_S = 60.0


class CandidateIndex(Protocol):
    """Retrieves candidates, as uids of entries."""

    async def nearest(self, query: DescribedQuery, source: str, limit: int) -> Sequence[bytes]:
        """Return the best candidates of one source, best first."""

    async def features(self, source: str, uids: Sequence[bytes]) -> Sequence[FeaturesHit]:
        """Return the features of the candidates of a source."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The queries and sources to measure."""

    queries: Sequence[DescribedQuery]
    sources: Sequence[str]
    check_every: int
    """Step between the queries whose candidates are verified, to count correct first hits."""

    def limit(self, source: str, stored: int) -> int:
        """Return the number of candidates that the Gateway requests from a source."""
        if source == "shapes":
            return GATEWAY.element_shape_candidates
        if source == "words":
            return candidate_count(GATEWAY.element_word_candidates, stored)
        return candidate_count(GATEWAY.element_window_candidates, stored)


@dataclass(frozen=True, slots=True)
class Measurement:
    """Results for one library size."""

    recall: Mapping[str, float]
    """Share of queries whose element is among the candidates of each source, and of any source."""
    right_first: float
    """Share of the verified queries whose element is the first hit."""
    times_ms: Mapping[str, Sequence[float]]
    """Duration of retrieval from each source alone, by query."""
    retrieval_ms: Sequence[float]
    """Duration of retrieval from all sources concurrently, with features, by query."""
    candidates: float
    """Mean number of distinct candidates."""

    def cells(self) -> str:
        """Return the cells of the row in the table."""
        shares = [*self.recall.values(), self.right_first]
        times = [
            f"{np.median(durations):.0f}, {np.quantile(durations, 0.95):.0f}"
            for durations in (*self.times_ms.values(), self.retrieval_ms)
        ]
        return " | ".join([*(f"{share:.3f}" for share in shares), f"{self.candidates:.0f}", *times])


def _entry(element: StoredEntry, sources: Sequence[str]) -> pb.Entry:
    entry = pb.Entry(image_id=element.id, features=element.features)
    bag = element.bag
    if len(bag.words) and not {"words", "shapes"}.isdisjoint(sources):
        entry.sparse_vectors.add(
            space=SPACE, indices=bag.words.tolist(), values=bag.weights.tolist()
        )
    if "windows" in sources:
        entry.vectors.add(space=DENSE_SPACE, values=element.vector.astype("<f4").tobytes())
    return entry


async def create_library(catalog: Catalog, sources: Sequence[str]) -> None:
    """Create a library with the spaces of an element library."""
    spaces = [pb.VectorSpace(name=SPACE, sparse=True, compact=True)]
    if "windows" in sources:
        spaces.append(pb.VectorSpace(name=DENSE_SPACE, dimensions=DIMENSIONS, compact=True))
    await catalog.stub.CreateLibrary(
        pb.CreateLibraryRequest(
            library=pb.Library(
                library_id=LIBRARY, type=library_type_pb2.LIBRARY_TYPE_ELEMENT, spaces=spaces
            )
        )
    )


async def put(catalog: Catalog, entries: Sequence[pb.Entry]) -> None:
    """Store entries in batches."""
    for start in range(0, len(entries), BATCH):
        response = await catalog.stub.PutEntries(
            pb.PutEntriesRequest(library_id=LIBRARY, entries=entries[start : start + BATCH])
        )
        if any(result.HasField("error") for result in response.results):
            raise SystemExit(f"entries were not stored: {response.results}")


async def wait_until_indexed(catalog: Catalog) -> None:
    """Wait until the index of vectors is built."""
    while (await catalog.library(LIBRARY)).unindexed_vector_count > INDEXING_THRESHOLD:  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)


class CatalogIndex:
    """Retrieves candidates from a Catalog with the Gateway's client."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._client = CatalogClient(channel, TIMEOUT_S)

    async def nearest(self, query: DescribedQuery, source: str, limit: int) -> Sequence[bytes]:
        vectors: SparseVector | list[Vector]
        if source == "windows":
            vectors = [
                Vector(DENSE_SPACE, vector.astype("<f4").tobytes()) for vector in query.vectors
            ]
        else:
            bag = query.bag if source == "words" else query.shape_bag
            vectors = SparseVector(SPACE, bag.words.tolist(), bag.weights.tolist())
        return await self._client.candidates(
            CandidatesQuery(
                library_id=LIBRARY,
                library_uid="",
                descriptors=vectors,
                filter=None,
                limit=limit,
                limit_per_vector=math.ceil(limit * MAX_SHARE_PER_WINDOW),
            )
        )

    async def features(self, source: str, uids: Sequence[bytes]) -> Sequence[FeaturesHit]:
        del source
        return await self._client.get_features(LIBRARY, uids, library_uid="")


class ExactIndex:
    """Compares a query with all elements; words are weighted by their IDF, as in Qdrant."""

    def __init__(self, stored: Sequence[StoredEntry]) -> None:
        ends = np.cumsum([0, *(len(entry.bag.words) for entry in stored)])
        words = np.concatenate([entry.bag.words for entry in stored])
        weights = np.concatenate([entry.bag.weights for entry in stored])
        self._width = max(FIRST_WORD, int(words.max()) + 1)
        shape = len(stored), self._width
        self._bags = scipy.sparse.csr_matrix((weights, words, ends), shape).tocsc()
        counts = np.diff(self._bags.indptr)
        self._idf = np.log1p((len(stored) - counts + 0.5) / (counts + 0.5))
        self._vectors = np.stack([entry.vector for entry in stored])
        self._uids = [entry_uid(entry.id) for entry in stored]
        self._features = {entry_uid(entry.id): entry.features for entry in stored}

    async def nearest(self, query: DescribedQuery, source: str, limit: int) -> Sequence[bytes]:
        if source == "windows":
            scores = (query.vectors @ self._vectors.T).max(axis=0)
        else:
            bag = query.bag if source == "words" else query.shape_bag
            known = bag.words < self._width
            words = bag.words[known]
            scores = self._bags[:, words] @ (bag.weights[known] * self._idf[words])
        rows = np.argsort(-scores, kind="stable")[:limit]
        return [self._uids[row] for row in rows if scores[row] > 0]

    async def features(self, source: str, uids: Sequence[bytes]) -> Sequence[FeaturesHit]:
        del source
        return [FeaturesHit(uid, self._features[uid]) for uid in uids]


async def run_queries(index: CandidateIndex, plan: Plan, size: int) -> Measurement:
    """Measure recall and durations of all queries against a library of `size` elements."""
    vocabulary = Vocabulary.load()
    found = dict.fromkeys((*plan.sources, "any"), 0)
    times_ms: dict[str, list[float]] = {source: [] for source in plan.sources}
    retrieval_ms, counts, first = [], [], []
    for row, query in enumerate(plan.queries):
        sources = [
            source for source in plan.sources if source != "shapes" or len(query.shape_bag.words)
        ]
        # Measured before the single sources, so that it includes reads that are not yet cached.
        started_s = time.perf_counter()
        pending = {
            source: index.nearest(query, source, plan.limit(source, size)) for source in sources
        }
        hits = await load_candidates(pending, index.features)
        candidates = {hit.uid: hit.features for hit in hits}
        retrieval_ms.append(_since_ms(started_s))
        counts.append(len(candidates))
        element = entry_uid(query.element)
        for source in sources:
            started_s = time.perf_counter()
            uids = await index.nearest(query, source, plan.limit(source, size))
            times_ms[source].append(_since_ms(started_s))
            found[source] += element in uids
        found["any"] += element in candidates
        if row % plan.check_every == 0:
            first.append(_is_first(query, candidates, vocabulary))
    recall = {source: count / len(plan.queries) for source, count in found.items()}
    right_first, count = float(np.mean(first)), float(np.mean(counts))
    return Measurement(recall, right_first, times_ms, retrieval_ms, count)


def _since_ms(started_s: float) -> float:
    return (time.perf_counter() - started_s) * 1e3


def _is_first(
    query: DescribedQuery, candidates: Mapping[bytes, bytes], vocabulary: Vocabulary
) -> bool:
    """Return whether the right element is the first hit, not counting other shown elements."""
    stored = [Candidate(uid.hex(), blob) for uid, blob in candidates.items()]
    hits = find_elements(query.features, stored, vocabulary, Rules())
    others_shown = {entry_uid(name).hex() for name in query.shown - {query.element}}
    best = next((hit.id for hit in hits if hit.id not in others_shown), None)
    return best == entry_uid(query.element).hex()


async def measure(own: Sequence[StoredEntry], plan: Plan, sizes: Sequence[int]) -> None:
    """Measure each library size in a Catalog, and print a row for each."""
    further, sources = distractor_entries(sizes[-1] - len(own)), plan.sources
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"INDEXING_THRESHOLD": str(INDEXING_THRESHOLD)}
        async with bench.running(folder, **settings) as (catalog, pid):
            await create_library(catalog, sources)
            empty_kb = bench.memory_kb(pid)
            await put(catalog, [_entry(entry, sources) for entry in own])
            stored = len(own)
            for size in sizes:
                while stored < size:
                    part = list(islice(further, min(BATCH, size - stored)))
                    await put(catalog, [_entry(entry, sources) for entry in part])
                    stored += len(part)
                await wait_until_indexed(catalog)
                measurement = await run_queries(CatalogIndex(catalog.channel), plan, size)
                disk_kb = disk_bytes(folder) / size / 1e3
                held_kb, file_kb = (
                    1.024 * (now - before) / size
                    for now, before in zip(bench.memory_kb(pid), empty_kb, strict=True)
                )
                print(  # noqa: T201
                    f"| {size:,} | {measurement.cells()} | {disk_kb:.1f} | {held_kb:.1f}, "
                    f"{file_kb:.1f} |",
                    flush=True,
                )


async def measure_exactly(own: Sequence[StoredEntry], plan: Plan, sizes: Sequence[int]) -> None:
    """Measure each library size by exact comparison, and print a row for each."""
    stored = [*own, *distractor_entries(sizes[-1] - len(own))]
    for size in sizes:
        measurement = await run_queries(ExactIndex(stored[:size]), plan, size)
        print(f"| {size:,} | {measurement.cells()} |", flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--elements", type=int, default=1080)
    parser.add_argument("--queries", type=int, default=460)
    parser.add_argument("--negatives", type=int, default=520)
    parser.add_argument("--edition", choices=dataset.EDITIONS, default=dataset.REPORTED.name)
    parser.add_argument("--sources", choices=SOURCES, nargs="+", default=SOURCES)
    parser.add_argument("--check-every", type=int, default=3, help="verify every Nth query")
    parser.add_argument("--offline", action="store_true", help="compare exactly, without a Catalog")
    options = parser.parse_args()
    benchmark = dataset.prepare(
        options.elements,
        options.queries,
        options.negatives,
        edition=dataset.EDITIONS[options.edition],
    )
    own, queries = describe_benchmark(benchmark)
    plan = Plan(queries, options.sources, options.check_every)
    columns = ["elements", *plan.sources, "any", "right first", "candidates"]
    columns += [f"{source}: p50, p95 ms" for source in (*plan.sources, "all sources")]
    if not options.offline:
        columns += ["kB on disk", "kB in memory, of files"]
    print(f"| {' | '.join(columns)} |\n|{'---:|' * len(columns)}")  # noqa: T201
    measuring = measure_exactly if options.offline else measure
    asyncio.run(measuring(own, plan, options.sizes))


if __name__ == "__main__":
    main()
