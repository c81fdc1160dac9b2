"""Make the Gateway's logistic model and calibration table for comparing two pictures.

    python -m imagesearch_services.models.comparison.calibrate

Writes `services/gateway/scoring/tables/comparison/sscd.json`. The weights come from a logistic
regression in which copies and non-copies have the same total weight and no measure has a negative
weight. Evidence is the log odds of this model. The rate at which two different pictures reach an
evidence is counted on pictures paired with their nearest non-copy; within the tail, the tenth of
the pairs with the highest evidence, the excess is modeled as exponential.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import ModelVersion
from imagesearch_services.gateway.scoring.calibration import BUILT_IN_TABLES, Calibrations
from imagesearch_services.gateway.scoring.comparison import BUILT_IN_JUDGES, Judge, features
from imagesearch_services.models.common.embedder import COPY_MODEL, SEMANTIC_MODEL, VERSION
from imagesearch_services.models.common.pictures import data_folder
from imagesearch_services.models.common.tails import RESOLVED_COUNT, ExponentialTail
from imagesearch_services.models.comparison.measuring import Measured, measure_all
from imagesearch_services.models.comparison.pairs import NEAREST, RANDOM, choose

ORIGINALS = 10
"""Number of pictures of which all edited copies are used."""
NEAREST_PAIRS = 600
"""Number of pictures that are paired with their nearest non-copy."""
UNRELATED_PAIRS = 100
"""Number of random pairs."""

SAME_RATE = 0.002
"""Maximum share of pairs with the nearest non-copy that are judged the same picture.

Half of the documented share, because users store more pictures than this data set has, and the
nearest non-copy of a larger set is closer."""
RELATED_RATE = 0.01
"""Maximum share of unrelated pairs that each of two measures judges related."""

PENALTY = 1e-3
"""L2 penalty per pair; it keeps the weight of a measure that separates all pairs finite."""
STEPS = 20_000
"""Number of steps of gradient descent."""
ROWS = 61
"""Number of rows of the table."""
LOWEST_RATE = 1e-12
"""Lower bound of the rates in the table."""

Doubles = npt.NDArray[np.float64]


def fit(rows: Doubles, is_copy: npt.NDArray[np.bool_]) -> Doubles:
    """Fit non-negative weights and a bias, [features + 1], the bias last.

    Uses projected gradient descent on standardized columns; the problem is convex and small.
    """
    spread = np.maximum(rows.std(axis=0), 1e-6)
    design = np.column_stack([rows / spread, np.ones(len(rows))])
    share = np.where(is_copy, 0.5 / is_copy.sum(), 0.5 / (~is_copy).sum())
    weights = np.zeros(design.shape[1])
    curvature = float(np.linalg.eigvalsh((design * share[:, None]).T @ design)[-1])
    step_size = 1.0 / (0.25 * curvature + 1)
    for _ in range(STEPS):
        probability = 1 / (1 + np.exp(-np.clip(design @ weights, -50, 50)))
        gradient = design.T @ (share * (probability - is_copy)) + PENALTY * np.r_[weights[:-1], 0.0]
        weights = weights - step_size * gradient
        weights[:-1] = np.maximum(weights[:-1], 0.0)
    weights[:-1] /= spread
    return weights


def evidence_of(tail: ExponentialTail, rate: float) -> float:
    """Return the lowest threshold of evidence that at most a share `rate` of the pairs exceeds.

    The threshold satisfies both the fitted tail and the counted pairs. `rate` lies within the tail.
    """
    fitted = tail.start - tail.mean_excess * float(np.log(rate / tail.share))
    allowed = int(rate * tail.ascending.size)
    counted = float(tail.ascending[-1 - allowed])
    return max(fitted, counted + 1e-4)


def table(measured: Sequence[Measured]) -> dict[str, object]:
    """Return the model and the table that the Gateway reads."""
    names = list(features({}))
    rows = np.array([list(features(row.measures).values()) for row in measured])
    kinds = np.array([row.pair.kind for row in measured])
    is_copy = np.array([row.pair.is_copy for row in measured])
    weights = fit(rows, is_copy)
    evidence = rows @ weights[:-1] + weights[-1]
    of_nearest = np.sort(evidence[kinds == NEAREST])
    nearest = ExponentialTail.of(of_nearest)
    unrelated = ExponentialTail.of(np.sort(evidence[kinds == RANDOM]))
    low, high = np.floor(evidence.min()), np.ceil(evidence.max())
    grid = np.round(np.linspace(low, high, ROWS), 4)
    rates = np.clip(
        np.minimum.accumulate(nearest.rates(np.asarray(grid, np.float64))), LOWEST_RATE, 1.0
    )
    semantic = Calibrations.load([BUILT_IN_TABLES]).of(
        ModelVersion("semantic", SEMANTIC_MODEL, VERSION)
    )
    same = max(evidence_of(nearest, SAME_RATE), 0.0)
    return {
        "model": COPY_MODEL,
        "version": VERSION,
        "about": "edited copies against pictures paired with the nearest that is no copy",
        "bias": round(float(weights[-1]), 5),
        "weights": dict(zip(names, np.round(weights[:-1], 5).tolist(), strict=True)),
        "same": {
            "evidence": round(same, 4),
            "false_positive_rate": float(f"{nearest.rates(np.array([same]))[0]:.2e}"),
            "counted": f"{int((of_nearest >= same).sum())} of {of_nearest.size} pictures with "
            "their nearest non-copy",
        },
        "related": {
            "evidence": round(evidence_of(unrelated, RELATED_RATE), 4),
            "semantic_similarity": round(semantic.similarity_of_rate(RELATED_RATE) or 0.0, 4),
            "false_positive_rate": RELATED_RATE,
            "counted": "of unrelated pictures; the semantic one by the table of that model",
        },
        "extrapolated_below": float(f"{RESOLVED_COUNT / of_nearest.size:.2e}"),
        "raw": grid.tolist(),
        "score": np.round(1 / (1 + np.exp(-grid)), 4).tolist(),
        "false_positive_rate": [float(f"{rate:.4e}") for rate in rates],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    options = parser.parse_args()
    pairs = choose(
        options.data,
        is_test=False,
        originals=ORIGINALS,
        nearest=NEAREST_PAIRS,
        unrelated=UNRELATED_PAIRS,
    )
    measured = measure_all(pairs, "calibration")
    file = BUILT_IN_JUDGES / f"{COPY_MODEL}.json"
    file.write_text(json.dumps(table(measured), indent=1) + "\n")
    report(measured, file)


def report(measured: Sequence[Measured], file: Path) -> None:
    """Print the model, and the verdicts and the range of evidence for each kind of pair."""
    _, judge = Judge.load(file)
    made = json.loads(file.read_text())
    print(f"weights {made['weights']}, bias {made['bias']}")
    print(f"same {made['same']}, related {made['related']}")
    for kind in dict.fromkeys(row.pair.kind for row in measured):
        of_kind = [row.measures for row in measured if row.pair.kind == kind]
        verdicts = [judge.verdict(measures).name for measures in of_kind]
        counts = {name: verdicts.count(name) for name in sorted(set(verdicts))}
        evidence = [judge.evidence(measures) for measures in of_kind]
        print(f"{kind:24} {counts} evidence {min(evidence):.2f} to {max(evidence):.2f}")


if __name__ == "__main__":
    main()
