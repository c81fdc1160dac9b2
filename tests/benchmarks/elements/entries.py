"""Elements and queries with their words, shapes and window vectors, as Embedding computes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import Box
from imagesearch_services.embedding.elements import shapes
from imagesearch_services.embedding.elements.bags import Bag, weigh_words
from imagesearch_services.embedding.elements.description import (
    QUERY_SIDE_PX,
    STORED_SIDE_PX,
    describe_element,
    describe_query,
)
from imagesearch_services.embedding.elements.regional import Regional, pack_regional
from imagesearch_services.embedding.elements.vocabulary import FILE, Vocabulary
from imagesearch_services.embedding.inference.windows import Windows
from imagesearch_services.models.common.pictures import read_pixels
from imagesearch_services.models.elements import dataset
from imagesearch_services.models.elements.sources import FOLDER
from tests.benchmarks.elements.distractors import MODEL, Dense, distractors
from tests.benchmarks.elements.offline import (
    DESCRIPTION_MODULES,
    code_hash,
    map_cached,
    working_view,
)

Floats = npt.NDArray[np.float32]

QUERY_WINDOWS = {
    "windows": "0.6667x0.6667:3x3,0.5x0.5:4x4,0.375x0.375:6x6,0.25x0.25:8x8",
    "windows_side_px": "640",
}


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A described element."""

    id: str
    features: bytes
    bag: Bag
    vector: Floats


@dataclass(frozen=True, slots=True)
class DescribedQuery:
    """A described query."""

    element: str
    """Id of the element that the query must find."""
    shown: frozenset[str]
    """Ids of all elements that the query shows."""
    features: bytes
    bag: Bag
    shape_bag: Bag
    vectors: Floats
    """Vectors of the photo and of its windows, [1 + windows, dimensions]."""


def describe_benchmark(
    benchmark: dataset.Benchmark,
) -> tuple[list[StoredEntry], list[DescribedQuery]]:
    """Describe all elements, and every second query that shows elements.

    Results are cached by the hash of the code.
    """
    vocabulary, dense = Vocabulary.load(), Dense()
    key = code_hash(DESCRIPTION_MODULES, FILE, shapes.FILE, MODEL)
    folder = FOLDER / f"index-{benchmark.folder.name}-{key}"

    def describe_stored(element: dataset.Element) -> StoredEntry:
        features, bag = describe_element(
            working_view(benchmark, element.file, STORED_SIDE_PX), vocabulary
        )
        pixels = read_pixels(benchmark.folder / element.file)
        vector = dense.element_vector(pixels)
        box = np.array([(0, 0, pixels.shape[1], pixels.shape[0])], np.float32)
        raw = pack_regional(features.to_bytes(), Regional(vector[None], box))
        return StoredEntry(element.id, raw, bag, vector)

    def describe_shown(query: dataset.Query) -> DescribedQuery:
        features, bag, shape_bag = describe_query(
            working_view(benchmark, query.file, QUERY_SIDE_PX), vocabulary
        )
        pixels = read_pixels(benchmark.folder / query.file)
        vectors = dense.photo_vectors(pixels)
        whole = Box(0, 0, pixels.shape[1], pixels.shape[0])
        boxes = [whole, *Windows.from_parameters(QUERY_WINDOWS).boxes(whole)]
        raw = pack_regional(features.to_bytes(), Regional(vectors, np.array(boxes, np.float32)))
        names = [appearance.element for appearance in query.appearances]
        return DescribedQuery(names[0], frozenset(names), raw, bag, shape_bag, vectors)

    queries = [query for query in benchmark.queries[::2] if query.appearances]
    return (
        map_cached(folder / "elements", describe_stored, benchmark.elements),
        map_cached(folder / "queries", describe_shown, queries),
    )


def distractor_entries(count: int) -> Iterator[StoredEntry]:
    """Yield distractors as stored entries."""
    vocabulary = Vocabulary.load()
    for number, distractor in enumerate(distractors(count)):
        vector = distractor.vector.astype(np.float32)
        box = np.array([(0, 0, 1, 1)], np.float32)
        features = pack_regional(distractor.features, Regional(vector[None], box))
        yield StoredEntry(
            f"other-{number}", features, weigh_words(distractor.words, vocabulary), vector
        )
