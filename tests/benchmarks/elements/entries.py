"""Elements and queries as Embedding describes them: by words, shapes and windows."""

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
from imagesearch_services.embedding.windows import Windows
from imagesearch_services.models.common.pictures import read_pixels
from imagesearch_services.models.elements import dataset
from imagesearch_services.models.elements.sources import FOLDER
from tests.benchmarks.elements.distractors import MODEL, Dense, distractors
from tests.benchmarks.elements.offline import DESCRIPTION_MODULES, code_hash, in_parts, view

Floats = npt.NDArray[np.float32]

QUERY_WINDOWS = {
    "windows": "0.6667x0.6667:3x3,0.5x0.5:4x4,0.375x0.375:6x6,0.25x0.25:8x8",
    "windows_side_px": "640",
}


@dataclass(frozen=True, slots=True)
class Stored:
    """An element."""

    id: str
    features: bytes
    bag: Bag
    vector: Floats


@dataclass(frozen=True, slots=True)
class Asked:
    """A query: what it shows, and what is asked with."""

    element: str
    shown: frozenset[str]
    features: bytes
    bag: Bag
    shape_bag: Bag
    vectors: Floats


def described(benchmark: dataset.Benchmark) -> tuple[list[Stored], list[Asked]]:
    """Describe elements and every second query, as Embedding does."""
    vocabulary, dense = Vocabulary.load(), Dense()
    key = code_hash(DESCRIPTION_MODULES, FILE, shapes.FILE, MODEL)
    folder = FOLDER / f"index-{benchmark.folder.name}-{key}"

    def element(one: dataset.Element) -> Stored:
        features, bag = describe_element(view(benchmark, one.file, STORED_SIDE_PX), vocabulary)
        pixels = read_pixels(benchmark.folder / one.file)
        vector = dense.whole(pixels)
        box = np.array([(0, 0, pixels.shape[1], pixels.shape[0])], np.float32)
        raw = pack_regional(features.to_bytes(), Regional(vector[None], box))
        return Stored(one.id, raw, bag, vector)

    def query(one: dataset.Query) -> Asked:
        features, bag, shape_bag = describe_query(
            view(benchmark, one.file, QUERY_SIDE_PX), vocabulary
        )
        pixels = read_pixels(benchmark.folder / one.file)
        vectors = dense.all(pixels)
        whole = Box(0, 0, pixels.shape[1], pixels.shape[0])
        boxes = [whole, *Windows.from_parameters(QUERY_WINDOWS).boxes(whole)]
        raw = pack_regional(features.to_bytes(), Regional(vectors, np.array(boxes, np.float32)))
        names = [each.element for each in one.appearances]
        return Asked(names[0], frozenset(names), raw, bag, shape_bag, vectors)

    shown = [one for one in benchmark.queries[::2] if one.appearances]
    return (
        in_parts(folder / "elements", element, benchmark.elements),
        in_parts(folder / "queries", query, shown),
    )


def others(count: int) -> Iterator[Stored]:
    """Give distractors, as they are stored."""
    vocabulary = Vocabulary.load()
    for number, one in enumerate(distractors(count)):
        vector = one.vector.astype(np.float32)
        box = np.array([(0, 0, 1, 1)], np.float32)
        features = pack_regional(one.features, Regional(vector[None], box))
        yield Stored(f"other-{number}", features, weigh_words(one.words, vocabulary), vector)
