"""Make the Gateway's calibration table from photos that show no stored element.

    python -m tests.benchmarks.elements.calibrate    # from what measure --suite was answered

How much evidence does the best of all stored elements get in a photo without any? Counted up to the
best tenth of the photos; beyond it the excess is taken as exponential (peaks over threshold:
Pickands 1975, shape 0), and shared among the stored elements as `rate_of_one` says. A library that
grows has no more candidates than before, so that the rates of larger ones are on the safe side.
Every second photo is used; the others are measure.py's to judge by.

`score` is the number of zeros of that rate, as a share of those of `FULL_EVIDENCE`, what a sharp
element with plenty of texture gets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imagesearch_services.gateway.scoring.calibration import BUILT_IN_TABLES, Calibration
from tests.benchmarks.elements.dataset import Benchmark, prepare
from tests.benchmarks.elements.suite import LEAST_EVIDENCE, suite_answers

MODEL, VERSION = "dense", "2"
"""Whose libraries the table is for."""
TAIL_SHARE = 0.1
RESOLVED_COUNT = 5
"""A rate is no extrapolation where at least so many photos show it."""
FULL_EVIDENCE = 5.0
GRID = np.round(np.arange(LEAST_EVIDENCE, FULL_EVIDENCE + 0.01, 0.1), 2)
LOWEST_RATE = 1e-30

Doubles = npt.NDArray[np.float64]


def wrong_evidence(benchmark: Benchmark) -> Doubles:
    """Give the best evidence of each photo without, ascending; the least where it has none."""
    answers = suite_answers(benchmark)
    return np.sort([answers[one.file].best for one in benchmark.negatives[::2]])


def rates(best: Doubles, elements: int) -> Doubles:
    """Give the rate of one comparison at each row of the grid."""
    count = max(2, round(TAIL_SHARE * len(best)))
    start = best[-count]
    mean_excess = (best[-count:] - start).mean()
    seen = (len(best) - np.searchsorted(best, GRID, side="left")) / len(best)
    fitted = count / len(best) * np.exp(-(GRID - start) / mean_excess)
    wrong = np.where(start > GRID, seen, fitted)
    of_one = -np.expm1(np.log1p(-np.minimum(wrong, 1 - 1e-9)) / elements)
    return np.clip(np.minimum.accumulate(of_one), LOWEST_RATE, 1.0)


def write_table(best: Doubles, elements: int) -> Path:
    of_one = rates(best, elements)
    scores = np.clip(np.log(of_one / of_one[0]) / np.log(of_one[-1] / of_one[0]), 0.0, 1.0)
    table = {
        "model": MODEL,
        "version": VERSION,
        "about": f"{len(best)} photos without, {elements} stored elements",
        "extrapolated_below": float(f"{RESOLVED_COUNT / len(best) / elements:.2e}"),
        "raw": GRID.tolist(),
        "score": [round(float(score), 4) for score in scores],
        "false_positive_rate": [float(f"{rate:.4e}") for rate in of_one],
    }
    Calibration.from_columns(
        raw=table["raw"],
        score=table["score"],
        false_positive_rate=table["false_positive_rate"],
        extrapolated_below=table["extrapolated_below"],
    )
    file = BUILT_IN_TABLES / f"{MODEL}.json"
    file.write_text(json.dumps(table, indent=1) + "\n")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--elements", type=int, default=1080)
    parser.add_argument("--queries", type=int, default=460)
    parser.add_argument("--negatives", type=int, default=520)
    options = parser.parse_args()
    benchmark = prepare(options.elements, options.queries, options.negatives)
    best = wrong_evidence(benchmark)
    file = write_table(best, options.elements)
    quantiles = np.quantile(best, [0.5, 0.9, 0.99, 1]).round(2)
    print(f"best wrong evidence {quantiles}; {file.name} written")  # noqa: T201


if __name__ == "__main__":
    main()
