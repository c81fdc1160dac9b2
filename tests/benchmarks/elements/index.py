"""How stage one scales: candidates by words, by windows, by shapes, at 1,000 to 100,000 elements.

    python -m tests.benchmarks.elements.index                    # all three, in one library
    python -m tests.benchmarks.elements.index --ways words       # what one of them takes alone
    python -m tests.benchmarks.elements.index --ways windows
    python -m tests.benchmarks.elements.index --offline          # what they find, without a Catalog

Stage one is what the Gateway does: it asks all ways at once, and for the features of what they
find. The benchmark's own elements stand among windows of photos that show none of them
(distractors.py). What was described is kept in `.cache/elements`, so that a run goes on where it
was stopped. Words and shapes are sparse vectors, windows dense ones, searched through the index
once it is built; in the last way all are compared exactly, in this process. Prints Markdown.
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
from tests.benchmarks.elements.entries import Asked, Stored, described, others
from tests.contract.catalog.support import Catalog

SIZES = (1_080, 10_000, 100_000)
LIBRARY = "index"
BATCH = 200
WAYS = ("words", "windows", "shapes")
DENSE_SPACE = "dense@2"
GATEWAY = SearchSettings()
DIMENSIONS = 512
INDEXING_THRESHOLD = 5_000
POLL_S = 2.0
TIMEOUT_S = 60.0


class Index(Protocol):
    """What finds candidates, by the uids of their entries."""

    async def nearest(self, query: Asked, way: str, limit: int) -> Sequence[bytes]:
        """Give so many candidates of a query by one way."""

    async def features(self, way: str, uids: Sequence[bytes]) -> Sequence[FeaturesHit]:
        """Give the features of candidates that a way found."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Which queries are asked, and how."""

    queries: Sequence[Asked]
    ways: Sequence[str]
    check_every: int
    """Queries of which one is checked, and told whether the right element comes first."""

    def limit(self, way: str, stored: int) -> int:
        """Say how many candidates the Gateway asks for."""
        if way == "shapes":
            return GATEWAY.element_shape_candidates
        if way == "words":
            return candidate_count(GATEWAY.element_word_candidates, stored)
        return candidate_count(GATEWAY.element_window_candidates, stored)


@dataclass(frozen=True, slots=True)
class Answers:
    """Figures of one size."""

    recall: Mapping[str, float]
    """Queries whose element is among the candidates, by way and by any."""
    right_first: float
    """Of the queries that were checked."""
    times_ms: Mapping[str, Sequence[float]]
    """By way, of each query: the candidates alone."""

    stage_one_ms: Sequence[float]
    """All ways at once and the features of what they found, as the Gateway asks, of each query."""
    candidates: float
    """Of all ways together, in the mean."""

    def cells(self) -> str:
        shares = [*self.recall.values(), self.right_first]
        times = [
            f"{np.median(each):.0f}, {np.quantile(each, 0.95):.0f}"
            for each in (*self.times_ms.values(), self.stage_one_ms)
        ]
        return " | ".join([*(f"{share:.3f}" for share in shares), f"{self.candidates:.0f}", *times])


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
    """Make one as the Gateway makes a library of elements."""
    spaces = [pb.VectorSpace(name=SPACE, sparse=True, compact=True)]
    if "windows" in ways:
        spaces.append(pb.VectorSpace(name=DENSE_SPACE, dimensions=DIMENSIONS, compact=True))
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


class ThroughCatalog:
    """A Catalog, asked as the Gateway asks."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._client = CatalogClient(channel, TIMEOUT_S)

    async def nearest(self, query: Asked, way: str, limit: int) -> Sequence[bytes]:
        asked: SparseVector | list[Vector]
        if way == "windows":
            asked = [Vector(DENSE_SPACE, one.astype("<f4").tobytes()) for one in query.vectors]
        else:
            bag = query.bag if way == "words" else query.shape_bag
            asked = SparseVector(SPACE, bag.words.tolist(), bag.weights.tolist())
        return await self._client.candidates(
            CandidatesQuery(
                library_id=LIBRARY,
                library_uid="",
                by=asked,
                filter=None,
                limit=limit,
                limit_per_vector=math.ceil(limit * MAX_SHARE_PER_WINDOW),
            )
        )

    async def features(self, way: str, uids: Sequence[bytes]) -> Sequence[FeaturesHit]:
        del way
        return await self._client.get_features(LIBRARY, uids, library_uid="")


class ByComparing:
    """Compares with every element; words as Qdrant does, with the inverse document frequency."""

    def __init__(self, stored: Sequence[Stored]) -> None:
        ends = np.cumsum([0, *(len(one.bag.words) for one in stored)])
        words = np.concatenate([one.bag.words for one in stored])
        weights = np.concatenate([one.bag.weights for one in stored])
        self._width = max(FIRST_WORD, int(words.max()) + 1)
        shape = len(stored), self._width
        self._bags = scipy.sparse.csr_matrix((weights, words, ends), shape).tocsc()
        counts = np.diff(self._bags.indptr)
        self._rarity = np.log1p((len(stored) - counts + 0.5) / (counts + 0.5))
        self._vectors = np.stack([one.vector for one in stored])
        self._uids = [entry_uid(one.id) for one in stored]
        self._features = {entry_uid(one.id): one.features for one in stored}

    async def nearest(self, query: Asked, way: str, limit: int) -> Sequence[bytes]:
        if way == "windows":
            scores = (query.vectors @ self._vectors.T).max(axis=0)
        else:
            bag = query.bag if way == "words" else query.shape_bag
            known = bag.words < self._width
            asked = bag.words[known]
            scores = self._bags[:, asked] @ (bag.weights[known] * self._rarity[asked])
        rows = np.argsort(-scores, kind="stable")[:limit]
        return [self._uids[row] for row in rows if scores[row] > 0]

    async def features(self, way: str, uids: Sequence[bytes]) -> Sequence[FeaturesHit]:
        del way
        return [FeaturesHit(uid, self._features[uid]) for uid in uids]


async def ask(index: Index, asking: Asking, size: int) -> Answers:
    vocabulary = Vocabulary.load()
    found = dict.fromkeys((*asking.ways, "any"), 0)
    times_ms: dict[str, list[float]] = {way: [] for way in asking.ways}
    stage_one_ms, counts, first = [], [], []
    for row, query in enumerate(asking.queries):
        ways = [way for way in asking.ways if way != "shapes" or len(query.shape_bag.words)]
        # Before the ways one by one: what the engine reads for the first time is in this time.
        started_s = time.perf_counter()
        asked = {way: index.nearest(query, way, asking.limit(way, size)) for way in ways}
        candidates = {one.uid: one.features for one in await load_candidates(asked, index.features)}
        stage_one_ms.append(_since_ms(started_s))
        counts.append(len(candidates))
        element = entry_uid(query.element)
        for way in ways:
            started_s = time.perf_counter()
            several = await index.nearest(query, way, asking.limit(way, size))
            times_ms[way].append(_since_ms(started_s))
            found[way] += element in several
        found["any"] += element in candidates
        if row % asking.check_every == 0:
            first.append(_is_first(query, candidates, vocabulary))
    recall = {way: count / len(asking.queries) for way, count in found.items()}
    right_first, count = float(np.mean(first)), float(np.mean(counts))
    return Answers(recall, right_first, times_ms, stage_one_ms, count)


def _since_ms(started_s: float) -> float:
    return (time.perf_counter() - started_s) * 1e3


def _is_first(query: Asked, candidates: Mapping[bytes, bytes], vocabulary: Vocabulary) -> bool:
    several = [Candidate(uid.hex(), features) for uid, features in candidates.items()]
    hits = find_elements(query.features, several, vocabulary, Rules())
    strangers = {entry_uid(name).hex() for name in query.shown - {query.element}}
    best = next((one.id for one in hits if one.id not in strangers), None)
    return best == entry_uid(query.element).hex()


async def measure(own: Sequence[Stored], asking: Asking, sizes: Sequence[int]) -> None:
    """Store and ask, through a Catalog of our own."""
    further, ways = others(sizes[-1] - len(own)), asking.ways
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"INDEXING_THRESHOLD": str(INDEXING_THRESHOLD)}
        async with bench.running(folder, **settings) as (catalog, pid):
            await create_library(catalog, ways)
            empty_kb = bench.memory_kb(pid)
            await put(catalog, [_entry(one, ways) for one in own])
            stored = len(own)
            for size in sizes:
                while stored < size:
                    part = list(islice(further, min(BATCH, size - stored)))
                    await put(catalog, [_entry(one, ways) for one in part])
                    stored += len(part)
                await indexed(catalog)
                answers = await ask(ThroughCatalog(catalog.channel), asking, size)
                disk_kb = bench.disk_bytes(folder) / size / 1e3
                held_kb, file_kb = (
                    1.024 * (now - before) / size
                    for now, before in zip(bench.memory_kb(pid), empty_kb, strict=True)
                )
                print(  # noqa: T201
                    f"| {size:,} | {answers.cells()} | {disk_kb:.1f} | {held_kb:.1f}, "
                    f"{file_kb:.1f} |",
                    flush=True,
                )


async def measure_exactly(own: Sequence[Stored], asking: Asking, sizes: Sequence[int]) -> None:
    stored = [*own, *others(sizes[-1] - len(own))]
    for size in sizes:
        answers = await ask(ByComparing(stored[:size]), asking, size)
        print(f"| {size:,} | {answers.cells()} |", flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--elements", type=int, default=1080)
    parser.add_argument("--queries", type=int, default=460)
    parser.add_argument("--negatives", type=int, default=520)
    parser.add_argument("--edition", choices=dataset.EDITIONS, default=dataset.REPORTED.name)
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=WAYS)
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
    asking = Asking(queries, options.ways, options.check_every)
    columns = ["elements", *asking.ways, "any", "right first", "candidates"]
    columns += [f"{way}: p50, p95 ms" for way in (*asking.ways, "stage one")]
    if not options.offline:
        columns += ["kB on disk", "kB in memory, of files"]
    print(f"| {' | '.join(columns)} |\n|{'---:|' * len(columns)}")  # noqa: T201
    measuring = measure_exactly if options.offline else measure
    asyncio.run(measuring(own, asking, options.sizes))


if __name__ == "__main__":
    main()
