"""Calibration tables of the Gateway: false positive rate and score of each closeness.

The rate at a closeness x is the probability that ONE comparison of unrelated pictures reaches x or
more. (Closeness is the similarity relative to the query's similarity to a background set; without a
background set it is the similarity.) The rate is estimated so that it predicts the share of queries
with a wrong answer. The tail is the tenth of the queries with the highest closeness; in the tail,
the excess over its start is modeled as exponential.

`score` is log(rate(x)) / log(rate(1)): 0 if unrelated pictures always reach x, 1 for identical
pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import ModelVersion
from imagesearch_services.gateway.scoring.calibration import (
    BUILT_IN_TABLES,
    Calibration,
    Calibrations,
    rate_of_one,
)
from imagesearch_services.models.common.tails import RESOLVED_COUNT, ExponentialTail

MOST_QUERIES = 0.9
"""Share of queries with a wrong answer above which single comparisons are counted instead."""
GRID = np.round(np.concatenate([[-1.0], np.arange(0.0, 1.0001, 0.02)]), 2)
"""Closeness in each row of a table."""
LOWEST_RATE = 1e-30
"""Lower bound of the rates in a table, which keeps their logarithm finite."""
SIZES = (1_000, 10_000, 100_000)
"""Library sizes, in images, in the printed table of thresholds."""
RATES = (0.1, 0.01, 0.001)
"""Shares of queries with a wrong answer in the printed table of thresholds."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ComparisonTail:
    """The false positive rate of one comparison, derived from the best match of each query.

    The comparisons of a query are not independent: a query that resembles a stored picture by
    chance also resembles the neighbors of that picture. The rate is therefore set so that all
    comparisons of a query together yield the observed share of queries with a wrong answer. Where
    nearly every query has a wrong answer that share is uninformative, and single comparisons are
    counted instead.
    """

    ascending: Floats
    """Values of all comparisons, ascending."""
    best: Floats
    """Best value of each query, ascending."""
    comparisons: float
    """Mean comparisons per query."""

    @classmethod
    def of(cls, values: Floats, of_query: npt.NDArray[np.intp]) -> ComparisonTail:
        """Build the tail.

        Args:
            values: Closeness of each row to each stored picture, [rows, stored].
            of_query: Query that each row belongs to, [rows].
        """
        queries = np.unique(of_query)
        best = np.array([values[of_query == query].max() for query in queries], np.float32)
        return cls(np.sort(values, axis=None), np.sort(best), values.size / len(queries))

    def rates(self, at: Doubles) -> Doubles:
        """Return the false positive rate of one comparison at each closeness."""
        above = self.ascending.size - np.searchsorted(self.ascending, at, side="left")
        counted = above / self.ascending.size
        wrong = ExponentialTail.of(self.best).rates(at)
        of_queries = -np.log1p(-np.minimum(wrong, 1 - 1e-9)) / self.comparisons
        return np.where(wrong > MOST_QUERIES, np.maximum(counted, of_queries), of_queries)

    @property
    def resolved(self) -> float:
        """The lowest rate that the data resolve without extrapolation."""
        return RESOLVED_COUNT / self.best.size / self.comparisons


def write_table(
    model: str, version: str, tails: Sequence[ComparisonTail], about: str, folder: Path
) -> Path:
    """Write the table of a model, with the highest rate of all populations at each closeness."""
    rates = np.max([tail.rates(GRID) for tail in tails], axis=0)
    rates = np.clip(np.minimum.accumulate(rates), LOWEST_RATE, 1.0)
    scores = np.clip(np.abs(np.log(rates) / np.log(rates[-1])), 0.0, 1.0)
    return save_table(
        {
            "model": model,
            "version": version,
            "about": about,
            "extrapolated_below": float(f"{max(tail.resolved for tail in tails):.2e}"),
            "raw": GRID.tolist(),
            "score": [round(float(score), 4) for score in scores],
            "false_positive_rate": [float(f"{rate:.4e}") for rate in rates],
        },
        folder,
    )


def save_table(table: Mapping[str, Any], folder: Path) -> Path:
    """Check a table and write it to `folder`, named after its model."""
    Calibration.from_columns(
        raw=table["raw"],
        score=table["score"],
        false_positive_rate=table["false_positive_rate"],
        extrapolated_below=table["extrapolated_below"],
    )
    file = folder / f"{table['model']}.json"
    file.write_text(json.dumps(table, indent=1) + "\n")
    return file


def thresholds(role: str, model: str, version: str) -> Iterator[str]:
    """Yield the lines of a Markdown table: minimum similarity by library size and allowed rate."""
    calibration = Calibrations.load([BUILT_IN_TABLES]).of(ModelVersion(role, model, version))
    yield f"Similarity for `{model}@{version}` (* extrapolated):"
    yield ""
    yield "| stored | " + " | ".join(f"{rate:g} of queries wrong" for rate in RATES) + " |"
    yield "|---:|" + "---:|" * len(RATES)
    for stored in SIZES:
        cells = []
        for rate in RATES:
            rate_of_comparison = rate_of_one(rate, stored)
            mark = "*" if calibration.is_extrapolated(rate_of_comparison) else ""
            similarity = calibration.similarity_of_rate(rate_of_comparison)
            cells.append("any" if similarity is None else f"{similarity:.3f}{mark}")
        yield f"| {stored:,} | {' | '.join(cells)} |"
    yield ""
