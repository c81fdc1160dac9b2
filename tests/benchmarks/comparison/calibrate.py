"""Make the Gateway's table for comparing two pictures, from copies and pairs that are none.

    python -m tests.benchmarks.comparison.calibrate

Weights come from a logistic regression in which copies and non-copies weigh the same, and no
measure may speak against a copy. How often do two different pictures have an evidence of x or more?
Counted on pictures paired with the nearest that is no copy; beyond the best tenth of them the
excess is taken as exponential (peaks over threshold: Pickands 1975, shape 0).
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
from tests.benchmarks.comparison.measuring import Measured, measure_all
from tests.benchmarks.comparison.pairs import choose
from tests.benchmarks.copies.dataset import data_folder
from tests.benchmarks.copies.vectors import COPY_MODEL, SEMANTIC_MODEL, VERSION

ORIGINALS = 10
NEAREST = 600
UNRELATED = 100

SAME_RATE = 0.002
"""Of pictures with their nearest non-copy, that may be called the same. Half of what we allow: the
pairs here are chosen among fewer pictures than a user has, and the nearest of more are nearer."""
RELATED_RATE = 0.01
"""Of unrelated pictures, that may be called related, by each of two measures."""

PENALTY = 1e-3
"""Of the squared weights, per pair: enough that a measure which parts all pairs stays finite."""
STEPS = 20_000
TAIL_SHARE = 0.1
RESOLVED_COUNT = 5
"""A rate is no extrapolation where at least so many pairs show it."""
ROWS = 61
LOWEST_RATE = 1e-12

Doubles = npt.NDArray[np.float64]


def fit(rows: Doubles, is_copy: npt.NDArray[np.bool_]) -> Doubles:
    """Fit weights that are not negative, and a bias: [features + 1], the bias last.

    Projected gradient descent on standardised columns: the problem is convex and small.
    """
    spread = np.maximum(rows.std(axis=0), 1e-6)
    design = np.column_stack([rows / spread, np.ones(len(rows))])
    share = np.where(is_copy, 0.5 / is_copy.sum(), 0.5 / (~is_copy).sum())
    weights = np.zeros(design.shape[1])
    length = 1.0 / (0.25 * float(np.linalg.eigvalsh((design * share[:, None]).T @ design)[-1]) + 1)
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -50, 50)))
        slope = design.T @ (share * (chance - is_copy)) + PENALTY * np.r_[weights[:-1], 0.0]
        weights = weights - length * slope
        weights[:-1] = np.maximum(weights[:-1], 0.0)
    weights[:-1] /= spread
    return weights


class Tail:
    """How often pairs have an evidence of x or more."""

    def __init__(self, values: Doubles) -> None:
        self._ascending = np.sort(values)
        count = max(2, round(TAIL_SHARE * values.size))
        self._share = count / values.size
        self._start = float(self._ascending[-count])
        self._mean_excess = float((self._ascending[-count:] - self._start).mean())

    def rates(self, at: Doubles) -> Doubles:
        seen = 1 - np.searchsorted(self._ascending, at, side="left") / self._ascending.size
        fitted = self._share * np.exp(-(at - self._start) / self._mean_excess)
        return np.where(at < self._start, seen, fitted)

    def evidence_of(self, rate: float) -> float:
        """Give the least evidence that is so seldom, both as counted and as fitted.

        Args:
            rate: below the tail's share.
        """
        fitted = self._start - self._mean_excess * float(np.log(rate / self._share))
        allowed = int(rate * self._ascending.size)
        counted = float(self._ascending[-1 - allowed])
        return max(fitted, counted + 1e-4)

    @property
    def resolved(self) -> float:
        return RESOLVED_COUNT / self._ascending.size


def table(measured: Sequence[Measured]) -> dict[str, object]:
    """Make everything that the Gateway needs."""
    names = list(features({}))
    rows = np.array([list(features(each.measures).values()) for each in measured])
    kinds = np.array([each.pair.kind for each in measured])
    is_copy = np.array([each.pair.is_copy for each in measured])
    weights = fit(rows, is_copy)
    evidence = rows @ weights[:-1] + weights[-1]
    nearest = Tail(evidence[kinds == "nearest_non_copy"])
    unrelated = Tail(evidence[kinds == "unrelated"])
    low, high = np.floor(evidence.min()), np.ceil(evidence.max())
    grid = np.round(np.linspace(low, high, ROWS), 4)
    rates = np.clip(np.minimum.accumulate(nearest.rates(grid)), LOWEST_RATE, 1.0)
    semantic = Calibrations.load([BUILT_IN_TABLES]).of(
        ModelVersion("semantic", SEMANTIC_MODEL, VERSION)
    )
    same = max(nearest.evidence_of(SAME_RATE), 0.0)
    return {
        "model": COPY_MODEL,
        "version": VERSION,
        "about": "edited copies against pictures paired with the nearest that is no copy",
        "bias": round(float(weights[-1]), 5),
        "weights": dict(zip(names, np.round(weights[:-1], 5).tolist(), strict=True)),
        "same": {
            "evidence": round(same, 4),
            "false_positive_rate": float(f"{nearest.rates(np.array([same]))[0]:.2e}"),
            "counted": f"{int((evidence[kinds == 'nearest_non_copy'] >= same).sum())} of "
            f"{int((kinds == 'nearest_non_copy').sum())} pictures with their nearest non-copy",
        },
        "related": {
            "evidence": round(unrelated.evidence_of(RELATED_RATE), 4),
            "semantic_similarity": round(semantic.similarity_of_rate(RELATED_RATE) or 0.0, 4),
            "false_positive_rate": RELATED_RATE,
            "counted": "of unrelated pictures; the semantic one by the table of that model",
        },
        "extrapolated_below": float(f"{nearest.resolved:.2e}"),
        "raw": grid.tolist(),
        "score": np.round(1 / (1 + np.exp(-grid)), 4).tolist(),
        "false_positive_rate": [float(f"{rate:.4e}") for rate in rates],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=data_folder())
    options = parser.parse_args()
    pairs = choose(
        options.data, is_test=False, originals=ORIGINALS, nearest=NEAREST, unrelated=UNRELATED
    )
    measured = measure_all(pairs, "calibration")
    made = table(measured)
    file = BUILT_IN_JUDGES / f"{COPY_MODEL}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(made, indent=1) + "\n")
    _, judge = Judge.load(file)
    print(f"weights {made['weights']}, bias {made['bias']}")  # noqa: T201
    print(f"same {made['same']}, related {made['related']}")  # noqa: T201
    for kind in dict.fromkeys(each.pair.kind for each in measured):
        of_kind = [each for each in measured if each.pair.kind == kind]
        verdicts = [judge.verdict(each.measures).name for each in of_kind]
        counts = {name: verdicts.count(name) for name in sorted(set(verdicts))}
        least = min(judge.evidence(each.measures) for each in of_kind)
        most = max(judge.evidence(each.measures) for each in of_kind)
        print(f"{kind:24} {counts} evidence {least:.2f} to {most:.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
