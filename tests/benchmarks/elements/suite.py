"""The benchmark's photos searched through every service."""

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
from imagesearch_services.runner.suite import Suite, SuiteSettings, free_ports
from tests.benchmarks.elements.dataset import CACHE, Benchmark, Query
from tests.benchmarks.elements.offline import PART, Hit
from tests.triton_server import prepared_models

LIBRARY = "elements"
LEAST_EVIDENCE = -2.0

Corners = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a search gave."""

    hits: Sequence[tuple[str, Hit]]
    """Element ids, best first."""
    duration_ms: float
    steps_ms: dict[str, float]

    def rank(self, element: str, others: Sequence[str]) -> int | None:
        """Give the rank of an element, leaving out others that are there, too; None: not there."""
        ids = [name for name, _ in self.hits if name == element or name not in others]
        return ids.index(element) if element in ids else None

    def hit(self, element: str) -> Hit | None:
        return next((hit for name, hit in self.hits if name == element), None)

    @property
    def best(self) -> float:
        return max((hit.evidence for _, hit in self.hits), default=LEAST_EVIDENCE)


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
                    Hit(-1, match.similarity, [_corners(one) for one in match.instances]),
                )
                for match in answer.matches
            ]
            steps = {one.step: one.duration_ms for one in answer.timings}
            return Answer(hits, duration_ms, steps)

        yield searcher


def answers_folder(benchmark: Benchmark) -> Path:
    """Where answers are kept; to be removed when the services have changed."""
    return CACHE / f"answers-{benchmark.folder.name}"


def suite_answers(benchmark: Benchmark) -> dict[str, Answer]:
    """Answer every photo through every service, by file; what was answered before is read.

    Each few answers are kept, so that a run goes on where it was stopped.
    """
    folder = answers_folder(benchmark)
    folder.mkdir(parents=True, exist_ok=True)
    asked = [*benchmark.queries, *benchmark.negatives]
    parts = [asked[start : start + PART] for start in range(0, len(asked), PART)]
    files = [folder / f"{number:03}.pkl" for number in range(len(parts))]
    if not all(file.exists() for file in files):
        with through_suite(benchmark) as searcher:
            for part, file in zip(parts, files, strict=True):
                if not file.exists():
                    file.write_bytes(pickle.dumps({one.file: searcher(one) for one in part}))
    answers: dict[str, Answer] = {}
    for file in files:
        answers |= pickle.loads(file.read_bytes())  # noqa: S301  # our own file
    return answers


def _corners(outline: geometry_pb2.Quadrilateral) -> Corners:
    return np.array([(corner.x, corner.y) for corner in outline.corners])
