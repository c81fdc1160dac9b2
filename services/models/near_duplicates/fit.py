"""Fit the weights of the Gateway's near-duplicate classifier.

    python -m imagesearch_services.models.near_duplicates.fit

Writes `services/gateway/duplicates/tables/near_duplicates.json` and prints how many pairs the
classifier judges correctly. The pairs are the candidates among the pictures and their copies: the
embeddings accept them at five times the default false positive rate. A pair belongs to the training
set if the original of its first picture has an even number, else to the test set. Known duplicates
in the data set count as copies.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from imagesearch_services.common.types import ModelVersion
from imagesearch_services.embedding.comparison.copies import measure_pair, view_of
from imagesearch_services.embedding.comparison.view import View
from imagesearch_services.embedding.inference.background import load_backgrounds
from imagesearch_services.gateway.duplicates.copy_classifier import (
    BUILT_IN_WEIGHTS,
    CopyClassifier,
    features,
)
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
from imagesearch_services.models.near_duplicates.pictures import (
    FOLDER,
    PICTURES,
    PictureSet,
    known_duplicates,
    load_pictures,
    stored_pictures,
)

MODEL = ModelVersion("copy", "sscd", "1")
RATE = 0.01
"""Default false positive rate of FindDuplicates."""
PENALTY = 1e-4
"""L2 penalty on the weights of the standardized features."""
STEPS = 30
"""Number of steps of Newton's method."""
DECIMALS = 3
"""Number of decimals of the written weights."""
SOURCES = (
    *("features/geometric_check.py", "features/local_features.py"),
    *("comparison/alignment.py", "comparison/copies.py", "comparison/optical_flow.py"),
    *("comparison/overlap.py", "comparison/view.py"),
)
"""Paths of the modules that determine the evidence, relative to the Embedding service."""
COLUMNS = (
    "agreement",
    "contrast_share",
    "bend",
    "shown_of_first",
    "shown_of_second",
    "inlier_count",
)
"""Fields of the evidence, in the order of its columns."""

Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder(), help="folder of the data set")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="number of pictures")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--output", type=Path, default=BUILT_IN_WEIGHTS, help="JSON file to write")
    options = parser.parse_args()
    pictures = load_pictures(options.data, options.pictures)
    pairs, embeddings = _candidates(pictures)
    evidence = _evidence(pictures, options.data, pairs, options.processes)
    table = [
        features(evidence_of_embeddings, _copy_evidence(row))
        for evidence_of_embeddings, row in zip(embeddings, evidence, strict=True)
    ]
    names = list(table[0])
    values = np.array([list(row.values()) for row in table])
    is_copy, originals = _truth(pictures, pairs)
    is_training = originals[pairs[:, 0]] % 2 == 0
    weights, bias = _fit(values[is_training], is_copy[is_training])
    _write(dict(zip(names, weights, strict=True)), bias, options.output)
    for label, rows in (("train", is_training), ("test", ~is_training)):
        _report(label, values[rows] @ weights + bias, is_copy[rows])


def _candidates(pictures: PictureSet) -> tuple[Rows, list[EmbeddingEvidence]]:
    """Return the pairs that the embeddings accept, [pairs, 2], and their embedding evidence."""
    vectors = pictures.vectors
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
    is_candidate = (similarities - lower) / (1 - lower) >= (threshold.min_similarity or 0.0)
    pairs = np.argwhere(np.triu(is_candidate, 1))
    return pairs, [
        EmbeddingEvidence(
            float(similarities[a, b]),
            closeness(float(similarities[a, b]), float(min(backgrounds[a], backgrounds[b]))),
            closeness(float(similarities[a, b]), float(max(backgrounds[a], backgrounds[b]))),
        )
        for a, b in pairs
    ]


def _evidence(pictures: PictureSet, data: Path, pairs: Rows, processes: int) -> Doubles:
    """Return the pixel evidence of pairs, [pairs, columns], from the cache if possible."""
    cache = FOLDER / f"evidence-{fingerprint(SOURCES)}.npz"
    if cache.exists():
        with np.load(cache) as cached:
            if np.array_equal(cached["pairs"], pairs):
                known: Doubles = cached["evidence"]
                return known
    thumbnails = [picture.thumbnail for picture in stored_pictures(pictures, data)]
    with ProcessPoolExecutor(processes, initializer=_share, initargs=(thumbnails,)) as pool:
        evidence = np.array(list(pool.map(_measure, pairs.tolist(), chunksize=20)))
    np.savez(cache, pairs=pairs, evidence=evidence)
    return evidence


_THUMBNAILS: list[bytes] = []
"""Thumbnails of all pictures; each worker process has a copy."""


def _share(thumbnails: Sequence[bytes]) -> None:
    _THUMBNAILS[:] = thumbnails


@functools.lru_cache(maxsize=1000)
def _view(row: int) -> View:
    with Image.open(io.BytesIO(_THUMBNAILS[row])) as picture:
        return view_of(np.asarray(picture.convert("RGB")))


def _measure(pair: Sequence[int]) -> list[float]:
    evidence = measure_pair(_view(pair[0]), _view(pair[1]))
    return [float(getattr(evidence, name)) for name in COLUMNS]


def _copy_evidence(row: Doubles) -> CopyEvidence:
    values = dict(zip(COLUMNS, row.tolist(), strict=True))
    return CopyEvidence(**{**values, "inlier_count": int(values["inlier_count"])})


def _truth(pictures: PictureSet, pairs: Rows) -> tuple[Mask, Rows]:
    """Return which pairs are copies, and the row of the original of each picture."""
    rows = {name: row for row, name in enumerate(pictures.names)}
    originals = np.array([*range(len(rows)), *(rows[copy.original] for copy in pictures.copies)])
    identity = originals.copy()
    for group in known_duplicates():
        members = sorted(rows[name] for name in group if name in rows)
        for row in members[1:]:
            identity[originals == row] = members[0]
    return identity[pairs[:, 0]] == identity[pairs[:, 1]], originals


def _fit(values: Doubles, is_copy: Mask) -> tuple[Doubles, float]:
    """Fit a logistic model by Newton's method; return its weights and bias."""
    mean, spread = values.mean(axis=0), values.std(axis=0) + 1e-9
    design = np.column_stack([(values - mean) / spread, np.ones(len(values))])
    weights = np.zeros(design.shape[1])
    for _ in range(STEPS):
        probability = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (probability - is_copy) / len(design) + 2 * PENALTY * weights
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design / len(design)
        weights -= np.linalg.solve(curvature + 2 * PENALTY * np.eye(len(weights)), gradient)
    return weights[:-1] / spread, float(weights[-1] - weights[:-1] / spread @ mean)


def _write(weights: Mapping[str, float], bias: float, output: Path) -> None:
    """Write the table, and check that the Gateway can load it."""
    table = {
        "model": MODEL.name,
        "version": MODEL.version,
        "bias": round(bias, DECIMALS),
        "weights": {name: round(float(weight), DECIMALS) for name, weight in weights.items()},
    }
    output.write_text(json.dumps(table, indent=2) + "\n")
    CopyClassifier.load(output)


def _report(label: str, log_odds: Doubles, is_copy: Mask) -> None:
    accepted = log_odds >= 0
    print(
        f"{label}: {(accepted & is_copy).sum()} of {is_copy.sum()} copies accepted,"
        f" {(accepted & ~is_copy).sum()} of {(~is_copy).sum()} other pairs"
    )


if __name__ == "__main__":
    main()
