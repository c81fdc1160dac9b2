"""Fit the weights of the Gateway's near-duplicate classifier and write them to its table.

    python -m tests.benchmarks.duplicates.fit      # prints how well they do

Pairs are those of the benchmark's pictures that embeddings alone take for copies at five times the
default rate. They are shared out by original: what is made of an even picture trains, what is made
of an odd one tests. What the lists say are repeats in the data counts as copies.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imagesearch_services.common.types import ModelVersion
from imagesearch_services.embedding.background import load_backgrounds
from imagesearch_services.embedding.copies import measure_pair, view_of
from imagesearch_services.gateway.duplicates.copy_classifier import BUILT_IN_WEIGHTS, features
from imagesearch_services.gateway.duplicates.finder import LOOSE_RATE_FACTOR
from imagesearch_services.gateway.duplicates.model import EmbeddingEvidence
from imagesearch_services.gateway.ports import CopyEvidence
from imagesearch_services.gateway.scoring.calibration import (
    BUILT_IN_TABLES,
    Calibrations,
    Threshold,
    closeness,
)
from imagesearch_services.models.common.pictures import data_folder
from imagesearch_services.models.comparison.measuring import fingerprint
from tests.benchmarks.duplicates.planted import FOLDER, Pictures, pictures, repeats, thumbnails

MODEL = ModelVersion("copy", "sscd", "1")
RATE = 0.01
PENALTY = 1e-4
"""Of the squared weights of standardised features."""
STEPS = 30
SOURCES = ("copies.py", "comparison/alignment.py", "geometric_check.py", "local_features.py")
"""Of the Embedding service, that the evidence comes from."""
COLUMNS = (
    "agreement",
    "contrast_share",
    "bend",
    "shown_of_first",
    "shown_of_second",
    "inlier_count",
)

Floats = npt.NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=BUILT_IN_WEIGHTS, help="JSON file to write")
    options = parser.parse_args()
    stored = pictures(options.data)
    pairs, likenesses = _candidates(stored)
    found = _evidence(stored, options.data, pairs, options.processes)
    rows = [
        features(likeness, CopyEvidence(**dict(zip(COLUMNS, map(float, row), strict=True))))  # type: ignore[arg-type]
        for likeness, row in zip(likenesses, found, strict=True)
    ]
    names = list(rows[0])
    values = np.array([[row[name] for name in names] for row in rows])
    is_copy, originals = _truth(stored, pairs)
    trains = originals[pairs[:, 0]] % 2 == 0
    weights, bias = _fit(values[trains], is_copy[trains])
    for label, rows_of in (("train", trains), ("test", ~trains)):
        odds = values[rows_of] @ weights + bias
        _say(label, odds, is_copy[rows_of])
    table = {
        "model": MODEL.name,
        "version": MODEL.version,
        "bias": round(bias, 3),
        "weights": {
            name: round(float(weight), 3) for name, weight in zip(names, weights, strict=True)
        },
    }
    options.output.write_text(json.dumps(table, indent=2) + "\n")


def _candidates(stored: Pictures) -> tuple[npt.NDArray[np.intp], list[EmbeddingEvidence]]:
    """Give the pairs that are laid over each other, [pairs, 2], and how near they lie."""
    vectors = stored.vectors
    backgrounds = load_backgrounds()[MODEL.space].similarities(vectors)
    threshold = Threshold.strictest(
        Calibrations.load([BUILT_IN_TABLES]).of(MODEL),
        comparisons=len(vectors),
        rate_share=1.0,
        min_score=None,
        max_false_positive_rate=RATE * LOOSE_RATE_FACTOR,
    )
    similarities = vectors @ vectors.T
    lower = np.minimum(backgrounds[:, None], backgrounds)
    likely = (similarities - lower) / (1 - lower) >= (threshold.min_similarity or 0.0)
    pairs = np.argwhere(np.triu(likely, 1))
    return pairs, [
        EmbeddingEvidence(
            float(similarities[a, b]),
            closeness(float(similarities[a, b]), float(min(backgrounds[a], backgrounds[b]))),
            closeness(float(similarities[a, b]), float(max(backgrounds[a], backgrounds[b]))),
        )
        for a, b in pairs
    ]


def _evidence(stored: Pictures, data: Path, pairs: npt.NDArray[np.intp], processes: int) -> Floats:
    """Lay the pairs over each other; kept for the next time."""
    cache = FOLDER / f"evidence-{fingerprint(SOURCES)}.npz"
    if cache.exists():
        with np.load(cache) as kept:
            if np.array_equal(kept["pairs"], pairs):
                known: Floats = kept["evidence"]
                return known
    names = [*stored.names, *(copy.name for copy in stored.copies)]
    files = [
        *(data / name for name in stored.names),
        *(FOLDER / copy.name for copy in stored.copies),
    ]
    small = [picture.thumbnail for picture in thumbnails(names, files)]
    with ProcessPoolExecutor(processes, initializer=_share, initargs=(small,)) as pool:
        found = np.array(list(pool.map(_lay_over, pairs.tolist(), chunksize=20)))
    np.savez(cache, pairs=pairs, evidence=found)
    return found


_SMALL: list[bytes] = []


def _share(small: Sequence[bytes]) -> None:
    _SMALL[:] = small


@functools.lru_cache(maxsize=1000)
def _view(row: int) -> Any:
    with Image.open(io.BytesIO(_SMALL[row])) as picture:
        return view_of(np.asarray(picture.convert("RGB")))


def _lay_over(pair: Sequence[int]) -> list[float]:
    found = measure_pair(_view(pair[0]), _view(pair[1]))
    return [float(getattr(found, name)) for name in COLUMNS]


def _truth(
    stored: Pictures, pairs: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
    """Tell which pairs are copies, and of which picture each one is."""
    rows = {name: row for row, name in enumerate(stored.names)}
    originals = np.array([*range(len(rows)), *(rows[copy.original] for copy in stored.copies)])
    same = originals.copy()
    for group in repeats():
        members = sorted(rows[name] for name in group if name in rows)
        for row in members[1:]:
            same[originals == row] = members[0]
    return same[pairs[:, 0]] == same[pairs[:, 1]], originals


def _fit(values: Floats, is_copy: npt.NDArray[np.bool_]) -> tuple[Floats, float]:
    """Fit a logistic model by Newton's method; give its weights and bias."""
    middle, spread = values.mean(axis=0), values.std(axis=0) + 1e-9
    design = np.column_stack([(values - middle) / spread, np.ones(len(values))])
    weights = np.zeros(design.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-design @ weights))
        slope = design.T @ (chance - is_copy) / len(design) + 2 * PENALTY * weights
        bend = (design * (chance * (1 - chance))[:, None]).T @ design / len(design)
        weights -= np.linalg.solve(bend + 2 * PENALTY * np.eye(len(weights)), slope)
    return weights[:-1] / spread, float(weights[-1] - weights[:-1] / spread @ middle)


def _say(label: str, odds: Floats, is_copy: npt.NDArray[np.bool_]) -> None:
    taken = odds >= 0
    print(  # noqa: T201
        f"{label}: {(taken & is_copy).sum()} of {is_copy.sum()} copies taken,"
        f" {(taken & ~is_copy).sum()} of {(~is_copy).sum()} others"
    )


if __name__ == "__main__":
    main()
