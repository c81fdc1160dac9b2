"""Make the Gateway's calibration table for element search, from photos without stored elements.

    python -m imagesearch_services.models.elements.calibrate

Writes `services/gateway/scoring/tables/dense.json`. The rate at an evidence is the share of photos
without stored elements whose best match reaches it. Within the tail, the tenth of the photos with
the highest evidence, the excess is modeled as exponential. The rate per photo is distributed over
the stored elements as `rate_of_one` defines. A larger library does not yield more candidates, so
the resulting rates are upper bounds. Every second photo is used; the benchmark uses the others.

`score` is the logarithm of the rate, scaled to 0 at the lowest evidence and to 1 at
`FULL_EVIDENCE`, which a sharp element with plenty of texture reaches.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imagesearch_services.gateway.scoring.calibration import BUILT_IN_TABLES
from imagesearch_services.models.common.calibration_table import LOWEST_RATE, save_table
from imagesearch_services.models.common.tails import RESOLVED_COUNT, ExponentialTail
from imagesearch_services.models.elements.dataset import Benchmark, prepare
from imagesearch_services.models.elements.suite import MIN_EVIDENCE, suite_answers

MODEL, VERSION = "dense", "2"
"""Name and version of the model whose libraries use the table."""
FULL_EVIDENCE = 5.0
"""Evidence with score 1."""
GRID = np.round(np.arange(MIN_EVIDENCE, FULL_EVIDENCE + 0.01, 0.1), 2)
"""Evidence in each row of the table."""

Doubles = npt.NDArray[np.float64]


def wrong_evidence(benchmark: Benchmark) -> Doubles:
    """Return the best evidence in each photo without stored elements, ascending."""
    answers = suite_answers(benchmark)
    return np.sort([answers[query.file].best for query in benchmark.negatives[::2]])


def rates(best: Doubles, elements: int) -> Doubles:
    """Return the false positive rate of one comparison at each row of the grid."""
    wrong = ExponentialTail.of(best).rates(GRID)
    of_one = -np.expm1(np.log1p(-np.minimum(wrong, 1 - 1e-9)) / elements)
    return np.clip(np.minimum.accumulate(of_one), LOWEST_RATE, 1.0)


def write_table(best: Doubles, elements: int) -> Path:
    of_one = rates(best, elements)
    scores = np.clip(np.log(of_one / of_one[0]) / np.log(of_one[-1] / of_one[0]), 0.0, 1.0)
    return save_table(
        {
            "model": MODEL,
            "version": VERSION,
            "about": f"{len(best)} photos without, {elements} stored elements",
            "extrapolated_below": float(f"{RESOLVED_COUNT / len(best) / elements:.2e}"),
            "raw": GRID.tolist(),
            "score": [round(float(score), 4) for score in scores],
            "false_positive_rate": [float(f"{rate:.4e}") for rate in of_one],
        },
        BUILT_IN_TABLES,
    )


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
    print(f"best wrong evidence {quantiles}; {file.name} written")


if __name__ == "__main__":
    main()
