"""The pipeline of an element search in one process, without services: for calibration and tuning.

Stage one is what Qdrant computes: the dot product of the bags with the inverse document frequency.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.elements import (
    bags,
    description,
    features,
    flat_colors,
    fusion,
    masks,
    matching,
    pose,
    rules,
    segments,
    shapes,
    verification,
    vocabulary,
)
from imagesearch_services.embedding.elements.bags import Bag
from imagesearch_services.embedding.elements.description import (
    WorkingImage,
    describe_element,
    describe_query,
    working_image,
)
from imagesearch_services.embedding.elements.features import QueryFeatures, StoredElement
from imagesearch_services.embedding.elements.fusion import appearances, evidence
from imagesearch_services.embedding.elements.rules import Rules
from imagesearch_services.embedding.elements.verification import Verified, verify
from imagesearch_services.embedding.elements.vocabulary import FILE, Vocabulary
from imagesearch_services.embedding.pictures import PictureFile
from imagesearch_services.models.elements.dataset import Benchmark
from imagesearch_services.models.elements.sources import FOLDER
from imagesearch_services.models.elements.suite import PART, Hit

CANDIDATES = 100
SHAPE_CANDIDATES = 30
THREADS = 2

DESCRIPTION_MODULES = (
    bags,
    description,
    features,
    flat_colors,
    masks,
    segments,
    shapes,
    vocabulary,
)
"""Modules whose code decides how a picture is described."""
SEARCH_MODULES = (matching, pose, rules, verification, fusion)
"""Modules whose code decides what a search finds, apart from `DESCRIPTION_MODULES`."""

Described = tuple[QueryFeatures, Bag, Bag]
"""Of a query, its words, and those of its shapes."""
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Features:
    """Of all elements, queries and photos without."""

    elements: Sequence[tuple[StoredElement, Bag]]
    queries: Sequence[Described]
    negatives: Sequence[Described]


class Index:
    """Stage one over all elements."""

    def __init__(self, elements: Sequence[tuple[StoredElement, Bag]]) -> None:
        self.elements = [element for element, _ in elements]
        self._postings: dict[int, list[tuple[int, float]]] = {}
        for row, (_, bag) in enumerate(elements):
            for word, weight in zip(bag.words.tolist(), bag.weights.tolist(), strict=True):
                self._postings.setdefault(word, []).append((row, weight))

    def scores(self, bag: Bag) -> npt.NDArray[np.float64]:
        """Score every element."""
        total = len(self.elements)
        scores = np.zeros(total)
        for word, weight in zip(bag.words.tolist(), bag.weights.tolist(), strict=True):
            found = self._postings.get(word, [])
            if found:
                frequency = np.log1p((total - len(found) + 0.5) / (len(found) + 0.5))
                for row, stored in found:
                    scores[row] += weight * frequency * stored
        return scores

    def nearest(self, bag: Bag, count: int) -> npt.NDArray[np.int64]:
        """Give the rows that share most with a bag."""
        scores = self.scores(bag)
        rows = np.argsort(-scores, kind="stable")[:count]
        return rows[scores[rows] > 0]


def describe(benchmark: Benchmark) -> Features:
    """Describe everything; what was described before with the same code is read.

    Each few pictures are a file of their own, so that a run goes on where it was stopped.
    """
    key = code_hash(DESCRIPTION_MODULES, FILE, shapes.FILE)
    folder = FOLDER / f"features-{benchmark.folder.name}-{key}"
    words = Vocabulary.load()

    def element(name: str) -> tuple[StoredElement, Bag]:
        return describe_element(view(benchmark, name, description.STORED_SIDE_PX), words)

    def query(name: str) -> Described:
        return describe_query(view(benchmark, name, description.QUERY_SIDE_PX), words)

    return Features(
        in_parts(folder / "elements", element, [one.file for one in benchmark.elements]),
        in_parts(folder / "queries", query, [one.file for one in benchmark.queries]),
        in_parts(folder / "negatives", query, [one.file for one in benchmark.negatives]),
    )


def in_parts(
    folder: Path, answer: Callable[[Asked], Answer], several: Sequence[Asked]
) -> list[Answer]:
    """Answer several, a file for each few."""
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Answer] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(several), PART):
            file = folder / f"{start:05d}.pkl"
            if not file.exists():
                part = list(pool.map(answer, several[start : start + PART]))
                file.write_bytes(pickle.dumps(part))
            found += pickle.loads(file.read_bytes())  # noqa: S301  # our own file
    return found


def code_hash(modules: Sequence[ModuleType], *files: Path) -> str:
    paths = [*files, *(Path(str(module.__file__)) for module in modules)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Searched:
    """What was found in every photo."""

    queries: Sequence[Sequence[Hit]]
    negatives: Sequence[Sequence[Hit]]


def search_all(benchmark: Benchmark, candidates: int = CANDIDATES) -> Searched:
    """Search every photo; what was searched before with the same code is read."""
    described = describe(benchmark)
    index, words = Index(described.elements), Vocabulary.load()
    key = code_hash((*DESCRIPTION_MODULES, *SEARCH_MODULES), FILE, shapes.FILE)
    folder = FOLDER / f"found-{benchmark.folder.name}-{candidates}-{key}"

    def found(photo: Described) -> list[Hit]:
        return search(photo, index, words, candidates)

    return Searched(
        in_parts(folder / "queries", found, described.queries),
        in_parts(folder / "negatives", found, described.negatives),
    )


def search(
    described: Described, index: Index, words: Vocabulary, candidates: int = CANDIDATES
) -> list[Hit]:
    """Search one photo; best first."""
    query, bag, shape_bag = described
    rows = np.union1d(index.nearest(bag, candidates), index.nearest(shape_bag, SHAPE_CANDIDATES))
    elements = [index.elements[row] for row in rows]
    found = verify(query, elements, words, Rules())
    hits = [_hit(query, elements[one.row], int(rows[one.row]), one) for one in found]
    return sorted(hits, key=lambda hit: -hit.evidence)


def _hit(query: QueryFeatures, element: StoredElement, row: int, one: Verified) -> Hit:
    factors = np.array([query.region.width / query.width, query.region.height / query.height])
    corners = [place.corners * factors for place in appearances(element, one)]
    return Hit(row, evidence(element, one, None), corners)


def view(benchmark: Benchmark, name: str, side_px: int) -> WorkingImage:
    picture = PictureFile((benchmark.folder / name).read_bytes()).decode()
    return working_image(picture, Box(0, 0, picture.width, picture.height), side_px)
