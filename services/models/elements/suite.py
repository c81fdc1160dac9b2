"""Searches with the photos of the elements benchmark through a running suite."""

from __future__ import annotations

import pickle
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imagesearch.client import Client, LibraryType
from imagesearch.type.v1 import geometry_pb2
from imagesearch_services.models.common.prepared import prepared_models
from imagesearch_services.models.elements.dataset import Benchmark, Query
from imagesearch_services.models.elements.sources import FOLDER
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports

LIBRARY = "elements"
MIN_EVIDENCE = -2.0
"""Evidence of a photo without any match, the lowest evidence of the table."""
PHOTOS_PER_FILE = 40
"""Number of photos whose answers are in a cache file."""

Corners = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Hit:
    """An element that was found in a photo."""

    row: int
    """Number of the element in the index; -1 if it was found by the suite."""
    evidence: float
    corners: list[Corners]
    """Corners of each instance in the photo, in pixels."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a search."""

    hits: Sequence[tuple[str, Hit]]
    """Element ids and hits, best first."""
    duration_ms: float
    steps_ms: dict[str, float]

    def rank(self, element: str, others: Sequence[str]) -> int | None:
        """Return the rank of an element, from 0, or None if it was not found.

        Other elements that the photo shows (`others`) are not counted.
        """
        ids = [name for name, _ in self.hits if name == element or name not in others]
        return ids.index(element) if element in ids else None

    def hit(self, element: str) -> Hit | None:
        return next((hit for name, hit in self.hits if name == element), None)

    @property
    def best(self) -> float:
        return max((hit.evidence for _, hit in self.hits), default=MIN_EVIDENCE)


Searcher = Callable[[Query], Answer]


@contextmanager
def running_suite() -> Iterator[Suite]:
    with tempfile.TemporaryDirectory() as folder:
        suite = Suite.start(
            SuiteSettings(
                port=free_ports(1)[0], data_dir=Path(folder), models_dir=prepared_models()
            )
        )
        try:
            yield suite
        finally:
            suite.stop()


@contextmanager
def through_suite(benchmark: Benchmark) -> Iterator[Searcher]:
    with running_suite() as suite, Client(suite.target) as client:
        client.create_library(library_id=LIBRARY, library_type=LibraryType.LIBRARY_TYPE_ELEMENT)
        for element in benchmark.elements:
            client.add_image(
                parent=f"libraries/{LIBRARY}",
                image=(benchmark.folder / element.file).read_bytes(),
                image_id=element.id,
            )

        def searcher(query: Query) -> Answer:
            content = (benchmark.folder / query.file).read_bytes()
            started_s = time.perf_counter()
            answer = client.search_images(
                parent=f"libraries/{LIBRARY}", image=content, min_score=0.0, page_size=100
            )
            duration_ms = (time.perf_counter() - started_s) * 1e3
            hits = [
                (
                    match.image.image_id,
                    Hit(-1, match.similarity, [_corners(outline) for outline in match.instances]),
                )
                for match in answer.matches
            ]
            steps = {timing.step: timing.duration_ms for timing in answer.timings}
            return Answer(hits, duration_ms, steps)

        yield searcher


def answers_folder(benchmark: Benchmark) -> Path:
    """Return the folder of cached answers; delete it after a change of the services."""
    return FOLDER / f"answers-{benchmark.folder.name}"


def suite_answers(benchmark: Benchmark) -> dict[str, Answer]:
    """Search with every photo through the suite, or read cached answers; returns answers by file.

    Answers are cached after every `PHOTOS_PER_FILE` photos, so an interrupted run resumes.
    """
    folder = answers_folder(benchmark)
    folder.mkdir(parents=True, exist_ok=True)
    photos = [*benchmark.queries, *benchmark.negatives]
    parts = [
        photos[start : start + PHOTOS_PER_FILE] for start in range(0, len(photos), PHOTOS_PER_FILE)
    ]
    files = [folder / f"{number:03}.pkl" for number in range(len(parts))]
    if not all(file.exists() for file in files):
        with through_suite(benchmark) as searcher:
            for part, file in zip(parts, files, strict=True):
                if not file.exists():
                    answered = {query.file: searcher(query) for query in part}
                    file.write_bytes(pickle.dumps(answered))
    answers: dict[str, Answer] = {}
    for file in files:
        answers |= pickle.loads(file.read_bytes())  # noqa: S301  # written above
    return answers


def _corners(outline: geometry_pb2.Quadrilateral) -> Corners:
    return np.array([(corner.x, corner.y) for corner in outline.corners])
