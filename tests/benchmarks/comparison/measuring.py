"""Comparisons in this process, with the suite's own code and the models in ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2

from imagesearch_services.embedding.backgrounds import load_backgrounds
from imagesearch_services.embedding.comparison.alignment import align
from imagesearch_services.embedding.comparison.looking import Vectors, judge, look, overlap_inputs
from imagesearch_services.embedding.pictures import PictureFile
from tests.benchmarks.comparison.pairs import Pair
from tests.benchmarks.copies.vectors import COPY_MODEL, SPECS, VERSION, Embedder

TOLD_EVERY = 100


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one pair."""

    pair: Pair
    measures: dict[str, float]
    edits: list[str]


class Measurer:
    """Compares as the Embedding service does."""

    def __init__(self) -> None:
        cv2.setNumThreads(1)
        self._copy = Embedder(COPY_MODEL)
        self._background = load_backgrounds()[f"{COPY_MODEL}@{VERSION}"]

    def measure(self, pair: Pair) -> Measured:
        first, second = (look(PictureFile(path.read_bytes())) for path in (pair.first, pair.second))
        aligned = align(first.view, second.view)
        spec = SPECS[COPY_MODEL]
        vectors = Vectors(
            copy=self._copy.of_inputs([each.inputs(spec) for each in (first, second)]),
            semantic=None,  # has a table of its own
            aligned_copy=None
            if aligned is None
            else self._copy.of_inputs([overlap_inputs(aligned, spec)]),
        )
        measures, edits = judge(first, second, aligned, vectors, self._background)
        return Measured(pair, measures, [_word(each.name, each.amount) for each in edits])


def measure_all(pairs: Iterable[Pair], cache: Path) -> list[Measured]:
    """Measure pairs; what was measured before is read from the cache."""
    known: dict[tuple[str, str], dict[str, object]] = {}
    if cache.exists():
        known = {(row["first"], row["second"]): row for row in map(json.loads, cache.open())}
    cache.parent.mkdir(parents=True, exist_ok=True)
    measurer: Measurer | None = None
    measured = []
    with cache.open("a") as file:
        for pair in pairs:
            row = known.get((str(pair.first), str(pair.second)))
            if row is None:
                measurer = measurer or Measurer()
                found = measurer.measure(pair)
                row = {
                    "first": str(pair.first),
                    "second": str(pair.second),
                    "measures": found.measures,
                    "edits": found.edits,
                }
                file.write(json.dumps(row) + "\n")
            measured.append(Measured(pair, row["measures"], row["edits"]))  # type: ignore[arg-type]
            if len(measured) % TOLD_EVERY == 0:
                print(f"{len(measured)} pairs", flush=True)  # noqa: T201
    return measured


def _word(name: str, amount: float | None) -> str:
    return name if amount is None else f"{name} {amount:.3g}"
