"""Calibration tables of the Gateway: how often unrelated pictures reach a closeness, and scores.

A table states for each closeness x how often ONE comparison of unrelated pictures reaches x or
more. (Closeness is the similarity judged against the query's background; without a background set
it is the similarity.) The rate is counted so that it predicts the share of queries with a wrong
answer; beyond the best tenth of the queries the excess over a threshold is taken as exponential.

`score` is log(rate(x)) / log(rate(1)): 0 where unrelated pictures always reach x, 1 for the same
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
"""Closeness of the rows."""
LOWEST_RATE = 1e-30
SIZES = (1_000, 10_000, 100_000)
"""Library sizes in the table of thresholds."""
RATES = (0.1, 0.01, 0.001)
"""Shares of queries with a wrong answer in the table of thresholds."""

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ComparisonTail:
    """The false positive rate of one comparison, derived from the best match of whole queries.

    The comparisons of a query are not independent: a query that resembles one stored picture by
    chance resembles its neighbors too. The rate is therefore the one that yields, over all
    comparisons of a query, the observed share of queries with a wrong answer. Where nearly every
    query has a wrong answer that share carries no information, and all comparisons are counted.
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
    """Write the table of a model: at each closeness the highest rate of all populations."""
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
    """Yield a Markdown table of the similarities that keep the rate of wrong answers."""
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
