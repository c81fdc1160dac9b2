"""Comparisons in this process, with the suite's own code and the models in ONNX Runtime."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2

from imagesearch_services import embedding
from imagesearch_services.embedding.background import load_backgrounds
from imagesearch_services.embedding.comparison.alignment import align
from imagesearch_services.embedding.comparison.looking import (
    Vectors,
    alignment_measures,
    embedding_measures,
    look,
    overlap_inputs,
)
from imagesearch_services.embedding.pictures import PictureFile
from tests.benchmarks.comparison.pairs import ROOT_CACHE, Pair
from tests.benchmarks.copies.vectors import COPY_MODEL, SPECS, VERSION, Embedder

TOLD_EVERY = 100


SOURCES = (
    *("local_features.py", "geometric_check.py"),
    *("comparison/alignment.py", "comparison/displacement.py", "comparison/looking.py"),
)
"""Of the Embedding service, that the measures come from."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one pair."""

    pair: Pair
    measures: dict[str, float]
    """Those that the evidence is weighed from."""


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
        measures = embedding_measures(vectors, self._background) | alignment_measures(
            first, second, aligned
        )
        return Measured(pair, measures)


def measure_all(pairs: Iterable[Pair], name: str) -> list[Measured]:
    """Measure pairs; what was measured before by the same code is read from a cache."""
    cache = ROOT_CACHE / f"{name}-{fingerprint(SOURCES)}.jsonl"
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
                }
                file.write(json.dumps(row) + "\n")
            measured.append(Measured(pair, row["measures"]))  # type: ignore[arg-type]
            if len(measured) % TOLD_EVERY == 0:
                print(f"{len(measured)} pairs", flush=True)  # noqa: T201
    return measured


def fingerprint(sources: Iterable[str]) -> str:
    """Tell this way of measuring from any other, by files of the Embedding service."""
    folder = Path(str(embedding.__file__)).parent
    content = b"".join((folder / source).read_bytes() for source in sources)
    return hashlib.sha256(content).hexdigest()[:8]
