"""Measures of pairs of pictures, computed in this process with the code of the service."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2

from imagesearch_services import embedding
from imagesearch_services.embedding.comparison.alignment import align
from imagesearch_services.embedding.comparison.judging import (
    ComparedPicture,
    Vectors,
    alignment_measures,
    embedding_measures,
    max_reduction,
    overlap_inputs,
    read_picture,
)
from imagesearch_services.embedding.inference.background import load_backgrounds
from imagesearch_services.embedding.pictures.description import describe_file
from imagesearch_services.embedding.pictures.picture_file import PictureFile
from imagesearch_services.models.common.embedder import COPY_MODEL, SPECS, VERSION, Embedder
from imagesearch_services.models.comparison.pairs import FOLDER, Pair

REPORT_INTERVAL = 100
"""Number of pairs between progress reports."""
SOURCES = (
    *("features/local_features.py", "features/geometric_check.py"),
    *("comparison/alignment.py", "comparison/displacement.py", "comparison/judging.py"),
    *("comparison/optical_flow.py", "comparison/overlap.py", "comparison/view.py"),
)
"""Paths of the modules that determine the measures, relative to the Embedding service."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The measures of a pair."""

    pair: Pair
    measures: dict[str, float]
    """The measures that the evidence is computed from, by name."""


class Measurer:
    """Compares pictures as the Embedding service does."""

    def __init__(self) -> None:
        cv2.setNumThreads(1)
        self._copy = Embedder(COPY_MODEL)
        self._background = load_backgrounds()[f"{COPY_MODEL}@{VERSION}"]

    def measure(self, pair: Pair) -> Measured:
        first, second = (_read(path) for path in (pair.first, pair.second))
        aligned = align(first.view, second.view)
        spec = SPECS[COPY_MODEL]
        vectors = Vectors(
            copy=self._copy.embed_inputs([picture.inputs(spec) for picture in (first, second)]),
            semantic=None,  # judged by the table of the semantic model
            aligned_copy=None
            if aligned is None
            else self._copy.embed_inputs([overlap_inputs(aligned, spec)]),
        )
        measures = embedding_measures(vectors, self._background) | alignment_measures(
            first, second, aligned
        )
        return Measured(pair, measures)


def measure_all(pairs: Iterable[Pair], name: str) -> list[Measured]:
    """Measure pairs, or read the measures of the same code from the cache."""
    cache = FOLDER / f"{name}-{fingerprint(SOURCES)}.jsonl"
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
            if len(measured) % REPORT_INTERVAL == 0:
                print(f"{len(measured)} pairs", flush=True)
    return measured


def fingerprint(sources: Iterable[str]) -> str:
    """Return a hash of modules of the Embedding service, given by their relative paths."""
    folder = Path(str(embedding.__file__)).parent
    content = b"".join((folder / source).read_bytes() for source in sources)
    return hashlib.sha256(content).hexdigest()[:8]


def _read(path: Path) -> ComparedPicture:
    file = PictureFile(path.read_bytes())
    decoded = file.decode(max_reduction(file.width, file.height))
    return read_picture(describe_file(file.content, file.media_type, decoded), decoded)
