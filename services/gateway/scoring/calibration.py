"""Calibration: the score and the false-positive rate of a raw similarity.

The table of a model version lists score and rate at ascending raw similarities. The rate is that of
one comparison of two unrelated pictures. A search makes many comparisons; its rate is

    1 - (1 - rate of one comparison) ** (number of comparisons)

Between the rows the score is interpolated linearly and the rate in logarithms, since rates fall by
powers of ten.
"""

from __future__ import annotations

import json
import math
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import ModelVersion

BUILT_IN_TABLES = Path(__file__).parent / "tables"
"""Folder of the committed tables."""

MIN_ROWS = 2
"""Minimum rows of a table."""

OUT_OF_REACH = 2.0
"""A similarity that no pair of vectors reaches, since cosines are at most 1."""

ROUNDING = 1e-6
"""Tolerance of a threshold. Similarities are rounded to single precision, and a hit whose score
equals the threshold has to pass it."""


class CalibrationError(Exception):
    """A table is malformed; the message names its file."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The table of one model version."""

    raw: Sequence[float]
    """Raw similarities, strictly ascending."""
    scores: Sequence[float]
    """Score at each similarity, in [0, 1], non-decreasing."""
    log_rates: Sequence[float]
    """Natural logarithm of the false-positive rate of one comparison at each similarity,
    non-increasing."""
    extrapolated_below: float
    """Lowest rate of one comparison that the calibration data supports."""

    @classmethod
    def from_columns(
        cls,
        *,
        raw: Sequence[float],
        score: Sequence[float],
        false_positive_rate: Sequence[float],
        extrapolated_below: float,
    ) -> Calibration:
        """Create a calibration from the columns of a table.

        Raises:
            CalibrationError: the columns are not a monotone map.
        """
        if len(raw) < MIN_ROWS or not len(raw) == len(score) == len(false_positive_rate):
            raise CalibrationError(
                f"raw, score and false_positive_rate must have the same length, {MIN_ROWS} or more"
            )
        if any(upper <= lower for lower, upper in pairwise(raw)):
            raise CalibrationError("raw must be strictly ascending")
        if any(upper < lower for lower, upper in pairwise(score)) or not (
            score[0] >= 0 and score[-1] <= 1
        ):
            raise CalibrationError("score must be in [0, 1] and must not decrease")
        rates = false_positive_rate
        if any(upper > lower for lower, upper in pairwise(rates)) or not (
            rates[0] <= 1 and rates[-1] > 0
        ):
            raise CalibrationError("false_positive_rate must be in (0, 1] and must not increase")
        return cls(
            tuple(raw),
            tuple(value + 0.0 for value in score),  # turn -0.0 into 0.0
            tuple(map(math.log, rates)),
            float(extrapolated_below),
        )

    def score(self, similarity: float) -> float:
        """Return the score of a raw similarity, 0 to 1."""
        return _interpolate(similarity, self.raw, self.scores)

    def false_positive_rate(self, similarity: float) -> float:
        """Return the probability that two unrelated pictures are at least this similar."""
        return math.exp(_interpolate(similarity, self.raw, self.log_rates))

    def similarity_of_score(self, score: float) -> float | None:
        """Return the lowest similarity with at least this score; None if any similarity has it."""
        if score <= self.scores[0]:
            return None
        row = bisect_left(self.scores, score)
        if row == len(self.scores):
            return OUT_OF_REACH
        return _between(score, self.scores, self.raw, row)

    def similarity_of_rate(self, rate: float) -> float | None:
        """Return the lowest similarity with at most this rate; None if any similarity has it.

        A rate below the lowest rate of the table returns the similarity of that lowest rate: the
        table does not resolve smaller rates.
        """
        if rate <= 0:  # a positive rate shared among very many comparisons underflows to 0
            return self.raw[-1]
        log_rate = math.log(rate)
        if log_rate >= self.log_rates[0]:
            return None
        row = bisect_left(self.log_rates, -log_rate, key=operator.neg)
        if row == len(self.log_rates):
            return self.raw[-1]
        return _between(log_rate, self.log_rates, self.raw, row)

    def is_extrapolated(self, rate: float) -> bool:
        """Return whether a rate of one comparison is too low for the data to support."""
        return rate < self.extrapolated_below


@dataclass(frozen=True, slots=True)
class Threshold:
    """The similarities that count as matches in one pass of a search.

    A search may make several passes over a library (the whole query, then its regions). Each pass
    spends a share of the query's false-positive rate, so that all passes together keep the rate.
    """

    calibration: Calibration
    comparisons: int
    """Stored images times query vectors."""
    rate_share: float
    """Share of the query's false-positive rate that this pass may spend, in (0, 1]."""
    floor: float | None
    """Lowest similarity that meets the bounds of the request; None without a bound."""

    @classmethod
    def strictest(
        cls,
        calibration: Calibration,
        *,
        comparisons: int,
        rate_share: float,
        min_score: float | None,
        max_false_positive_rate: float | None,
    ) -> Threshold:
        """Return the lowest threshold that meets both bounds; None means no bound."""
        comparisons = max(1, comparisons)
        floors: list[float | None] = []
        if min_score is not None:
            floors.append(calibration.similarity_of_score(min_score))
        if max_false_positive_rate is not None:
            rate = rate_of_one(max_false_positive_rate * rate_share, comparisons)
            floors.append(calibration.similarity_of_rate(rate))
        known = [floor for floor in floors if floor is not None]
        floor = max(known) if known else None
        return cls(calibration, comparisons, rate_share, floor)

    @property
    def min_similarity(self) -> float | None:
        """Lowest similarity of a match; None if every similarity matches."""
        return None if self.floor is None else self.floor - ROUNDING

    def accepts(self, similarity: float) -> bool:
        """Return whether a similarity reaches the threshold."""
        return self.min_similarity is None or similarity >= self.min_similarity

    def false_positive_rate(self, similarity: float) -> float:
        """Return the probability that a query without a true match has a match this similar."""
        rate = rate_of_many(self.calibration.false_positive_rate(similarity), self.comparisons)
        return min(1.0, rate / self.rate_share)

    def expected_false_positives(self, image_count: int) -> float:
        """Return the expected number of hits of one vector among `image_count` unrelated images."""
        if self.floor is None:
            return image_count
        return image_count * self.calibration.false_positive_rate(self.floor)

    @property
    def min_score(self) -> float:
        """Lowest score of a match."""
        return 0.0 if self.floor is None else self.calibration.score(self.floor)

    @property
    def applied_rate(self) -> float:
        """Probability that a query without a true match has a match."""
        return 1.0 if self.floor is None else self.false_positive_rate(self.floor)

    @property
    def extrapolated(self) -> bool:
        if self.floor is None:
            return False
        rate = self.calibration.false_positive_rate(self.floor)
        return self.calibration.is_extrapolated(rate)


class Calibrations:
    """The calibrations of all model versions."""

    def __init__(self, tables: Mapping[str, Calibration]) -> None:
        """Create the collection from calibrations by vector space, "NAME@VERSION"."""
        self._tables = dict(tables)

    @classmethod
    def load(cls, folders: Iterable[Path]) -> Calibrations:
        """Read every table in the folders; a later folder overrides an earlier one.

        Raises:
            CalibrationError: a table is malformed; the message names its file.
        """
        tables = {}
        for folder in folders:
            for path in sorted(folder.glob("*.json")):
                space, table = _read(path)
                tables[space] = table
        return cls(tables)

    def of(self, model: ModelVersion) -> Calibration:
        """Return the calibration of a model.

        Raises:
            ServiceError: MODEL_NOT_SERVED, if there is no table for it.
        """
        try:
            return self._tables[model.space]
        except KeyError:
            raise ServiceError(
                Reason.MODEL_NOT_SERVED,
                f"there is no calibration table for {model.space}: add one to CALIBRATION_DIR",
                metadata={"model": model.name, "version": model.version},
            ) from None


def closeness(similarity: float, background_similarity: float) -> float:
    """Return a similarity relative to the query's similarity to unrelated pictures.

    The closeness of an identical picture is 1, that of an unrelated picture about 0. The
    calibration tables map closeness to scores and rates. Without a background (0), the closeness
    is the similarity.
    """
    return (similarity - background_similarity) / (1 - background_similarity)


def similarity_of_closeness(value: float, background_similarity: float) -> float:
    """Return the similarity with this closeness, the inverse of `closeness`."""
    return value * (1 - background_similarity) + background_similarity


def rate_of_one(rate: float, comparisons: int) -> float:
    """Return the rate of one comparison at which all comparisons together have `rate`."""
    if rate >= 1:
        return 1.0
    return -math.expm1(math.log1p(-rate) / comparisons)


def rate_of_many(rate: float, comparisons: int) -> float:
    """Return the probability that at least one of the comparisons is a false positive.

    Args:
        rate: false-positive rate of one comparison.
        comparisons: number of comparisons, which count as independent.
    """
    if rate >= 1:
        return 1.0
    return -math.expm1(comparisons * math.log1p(-rate))


def _read(path: Path) -> tuple[str, Calibration]:
    try:
        table: dict[str, Any] = json.loads(path.read_text())
        return f"{table['model']}@{table['version']}", Calibration.from_columns(
            raw=table["raw"],
            score=table["score"],
            false_positive_rate=table["false_positive_rate"],
            extrapolated_below=table["extrapolated_below"],
        )
    except (CalibrationError, ValueError, KeyError, TypeError) as error:
        raise CalibrationError(f"{path}: {error!s}") from error


def _interpolate(x: float, xs: Sequence[float], ys: Sequence[float]) -> float:
    row = bisect_right(xs, x)
    if row == 0:
        return ys[0]
    if row == len(xs):
        return ys[-1]
    return _between(x, xs, ys, row)


def _between(x: float, xs: Sequence[float], ys: Sequence[float], row: int) -> float:
    """Interpolate between the rows `row - 1` and `row`."""
    part = (x - xs[row - 1]) / (xs[row] - xs[row - 1])
    return ys[row - 1] + part * (ys[row] - ys[row - 1])
