"""The pipeline of an element search in a single process, without services, for tuning.

Candidates are retrieved as Qdrant does: by the dot product of the bags of words, with inverse
document frequency.
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
from imagesearch_services.embedding.pictures.picture_file import PictureFile
from imagesearch_services.models.elements.dataset import Benchmark
from imagesearch_services.models.elements.sources import FOLDER
from imagesearch_services.models.elements.suite import PHOTOS_PER_FILE, Hit

CANDIDATES = 100
"""Number of candidates by words of local features."""
SHAPE_CANDIDATES = 30
"""Number of candidates by words of shapes."""
THREADS = 2
"""Number of pictures that are processed at a time."""

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
"""Modules that determine the description of a picture."""
SEARCH_MODULES = (matching, pose, rules, verification, fusion)
"""Modules that, with `DESCRIPTION_MODULES`, determine the result of a search."""

Described = tuple[QueryFeatures, Bag, Bag]
"""Features of a query, words of its local features, and words of its shapes."""
Input = TypeVar("Input")
Output = TypeVar("Output")


@dataclass(frozen=True, slots=True)
class BenchmarkFeatures:
    """Features of all elements, queries, and photos without elements."""

    elements: Sequence[tuple[StoredElement, Bag]]
    queries: Sequence[Described]
    negatives: Sequence[Described]


class WordIndex:
    """An inverted index of the words of all elements."""

    def __init__(self, elements: Sequence[tuple[StoredElement, Bag]]) -> None:
        self.elements = [element for element, _ in elements]
        self._postings: dict[int, list[tuple[int, float]]] = {}
        for row, (_, bag) in enumerate(elements):
            for word, weight in zip(bag.words.tolist(), bag.weights.tolist(), strict=True):
                self._postings.setdefault(word, []).append((row, weight))

    def scores(self, bag: Bag) -> npt.NDArray[np.float64]:
        """Return the score of each element, [elements]."""
        total = len(self.elements)
        scores = np.zeros(total)
        for word, weight in zip(bag.words.tolist(), bag.weights.tolist(), strict=True):
            postings = self._postings.get(word, [])
            if postings:
                idf = np.log1p((total - len(postings) + 0.5) / (len(postings) + 0.5))
                for row, stored in postings:
                    scores[row] += weight * idf * stored
        return scores

    def nearest(self, bag: Bag, count: int) -> npt.NDArray[np.int64]:
        """Return the rows of the elements with the highest scores, best first."""
        scores = self.scores(bag)
        rows = np.argsort(-scores, kind="stable")[:count]
        return rows[scores[rows] > 0]


def describe(benchmark: Benchmark) -> BenchmarkFeatures:
    """Describe all pictures; results are cached by the hash of the code."""
    key = code_hash(DESCRIPTION_MODULES, FILE, shapes.FILE)
    folder = FOLDER / f"features-{benchmark.folder.name}-{key}"
    vocabulary = Vocabulary.load()

    def describe_stored(name: str) -> tuple[StoredElement, Bag]:
        return describe_element(
            working_view(benchmark, name, description.STORED_SIDE_PX), vocabulary
        )

    def describe_photo(name: str) -> Described:
        return describe_query(working_view(benchmark, name, description.QUERY_SIDE_PX), vocabulary)

    return BenchmarkFeatures(
        map_cached(
            folder / "elements", describe_stored, [item.file for item in benchmark.elements]
        ),
        map_cached(folder / "queries", describe_photo, [item.file for item in benchmark.queries]),
        map_cached(
            folder / "negatives", describe_photo, [item.file for item in benchmark.negatives]
        ),
    )


def map_cached(
    folder: Path, function: Callable[[Input], Output], inputs: Sequence[Input]
) -> list[Output]:
    """Apply a function to all inputs; every `PHOTOS_PER_FILE` outputs are cached in a file."""
    folder.mkdir(parents=True, exist_ok=True)
    outputs: list[Output] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(inputs), PHOTOS_PER_FILE):
            file = folder / f"{start:05d}.pkl"
            if not file.exists():
                part = list(pool.map(function, inputs[start : start + PHOTOS_PER_FILE]))
                file.write_bytes(pickle.dumps(part))
            outputs += pickle.loads(file.read_bytes())  # noqa: S301  # our own file
    return outputs


def code_hash(modules: Sequence[ModuleType], *files: Path) -> str:
    """Return a short hash of the source of modules and of files."""
    paths = [*files, *(Path(str(module.__file__)) for module in modules)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class SearchResults:
    """Hits in each photo, best first."""

    queries: Sequence[Sequence[Hit]]
    negatives: Sequence[Sequence[Hit]]


def search_all(benchmark: Benchmark, candidates: int = CANDIDATES) -> SearchResults:
    """Search with all photos; results are cached by the hash of the code."""
    described = describe(benchmark)
    index, vocabulary = WordIndex(described.elements), Vocabulary.load()
    key = code_hash((*DESCRIPTION_MODULES, *SEARCH_MODULES), FILE, shapes.FILE)
    folder = FOLDER / f"found-{benchmark.folder.name}-{candidates}-{key}"

    def search_photo(photo: Described) -> list[Hit]:
        return search(photo, index, vocabulary, candidates)

    return SearchResults(
        map_cached(folder / "queries", search_photo, described.queries),
        map_cached(folder / "negatives", search_photo, described.negatives),
    )


def search(
    described: Described, index: WordIndex, vocabulary: Vocabulary, candidates: int = CANDIDATES
) -> list[Hit]:
    """Search with a photo; returns hits, best first."""
    query, bag, shape_bag = described
    rows = np.union1d(index.nearest(bag, candidates), index.nearest(shape_bag, SHAPE_CANDIDATES))
    elements = [index.elements[row] for row in rows]
    found = verify(query, elements, vocabulary, Rules())
    hits = [
        _hit(query, elements[verified.row], int(rows[verified.row]), verified) for verified in found
    ]
    return sorted(hits, key=lambda hit: -hit.evidence)


def _hit(query: QueryFeatures, element: StoredElement, row: int, verified: Verified) -> Hit:
    factors = np.array([query.region.width / query.width, query.region.height / query.height])
    corners = [appearance.corners * factors for appearance in appearances(element, verified)]
    return Hit(row, evidence(element, verified, None), corners)


def working_view(benchmark: Benchmark, name: str, side_px: int) -> WorkingImage:
    """Read a whole picture of the benchmark as a working image."""
    picture = PictureFile((benchmark.folder / name).read_bytes()).decode()
    return working_image(picture, Box(0, 0, picture.width, picture.height), side_px)
