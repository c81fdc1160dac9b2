"""Calibration: scores, false-positive rates and thresholds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import ModelVersion
from imagesearch_services.gateway.scoring.calibration import (
    BUILT_IN_TABLES,
    ROUNDING,
    Calibration,
    CalibrationError,
    Calibrations,
    Threshold,
    closeness,
    rate_of_many,
    rate_of_one,
    similarity_of_closeness,
)

TABLE = Calibration.from_columns(
    raw=[0.0, 0.2, 0.4, 0.8],
    score=[0.0, 0.1, 0.5, 1.0],
    false_positive_rate=[1.0, 1e-2, 1e-4, 1e-8],
    extrapolated_below=1e-6,
)


@pytest.mark.parametrize(
    ("similarity", "score", "rate"),
    [
        (-1.0, 0.0, 1.0),
        (0.0, 0.0, 1.0),
        (0.1, 0.05, 1e-1),
        (0.3, 0.3, 1e-3),
        (0.4, 0.5, 1e-4),
        (0.5, 0.625, 1e-5),
        (0.8, 1.0, 1e-8),
        (1.0, 1.0, 1e-8),
    ],
)
def test_scores_are_interpolated_linearly_and_rates_in_logarithms(
    similarity: float, score: float, rate: float
) -> None:
    assert TABLE.score(similarity) == pytest.approx(score)
    assert TABLE.false_positive_rate(similarity) == pytest.approx(rate)


@given(st.floats(0.001, 0.799))
def test_thresholds_invert_the_score_and_the_rate(similarity: float) -> None:
    assert TABLE.similarity_of_score(TABLE.score(similarity)) == pytest.approx(similarity)
    rate = TABLE.false_positive_rate(similarity)
    assert TABLE.similarity_of_rate(rate) == pytest.approx(similarity)


def test_a_score_of_zero_or_a_rate_of_one_is_no_threshold() -> None:
    assert TABLE.similarity_of_score(0.0) is None
    assert TABLE.similarity_of_rate(1.0) is None


def test_below_the_lowest_rate_of_the_table_its_last_row_is_the_threshold() -> None:
    assert TABLE.similarity_of_rate(1e-12) == 0.8
    assert TABLE.similarity_of_rate(0.0) == 0.8


def test_a_score_above_the_table_is_out_of_reach() -> None:
    low = Calibration.from_columns(
        raw=[0, 1], score=[0, 0.9], false_positive_rate=[1, 0.1], extrapolated_below=0.1
    )
    threshold = low.similarity_of_score(0.95)
    assert threshold is not None
    assert threshold > 1


@given(st.floats(1e-9, 0.999), st.integers(1, 10_000_000))
def test_rates_of_one_and_of_many_comparisons_are_inverse(rate: float, comparisons: int) -> None:
    single_rate = rate_of_one(rate, comparisons)
    assert 0 < single_rate <= rate * (1 + 1e-12)
    assert rate_of_many(single_rate, comparisons) == pytest.approx(rate)


def test_comparisons_count_as_independent() -> None:
    assert rate_of_many(0.5, 2) == pytest.approx(0.75)
    assert rate_of_one(0.75, 2) == pytest.approx(0.5)
    assert rate_of_many(1.0, 5) == rate_of_one(1.0, 5) == 1.0


def strictest(
    *, stored: int = 1000, share: float = 1.0, score: float | None = None, rate: float | None = None
) -> Threshold:
    return Threshold.strictest(
        TABLE,
        comparisons=stored,
        rate_share=share,
        min_score=score,
        max_false_positive_rate=rate,
    )


def test_a_threshold_keeps_the_rate_at_every_library_size() -> None:
    for stored in (0, 1, 10, 1000, 100_000):
        threshold = strictest(stored=stored, rate=0.001)
        assert threshold.applied_rate == pytest.approx(0.001, rel=1e-9)
    assert strictest(stored=10, rate=0.01).min_score < strictest(stored=1000, rate=0.01).min_score


def test_the_stricter_of_two_bounds_applies() -> None:
    by_score, by_rate = strictest(score=0.5), strictest(rate=0.01)
    assert strictest(score=0.5, rate=0.01) == by_rate
    assert strictest(score=0.5, rate=0.9) == by_score
    assert by_score.min_score == pytest.approx(0.5, abs=1e-4)


def test_passes_that_share_a_rate_have_it_together() -> None:
    whole = strictest(stored=1000, share=0.5, rate=0.01)
    regions = strictest(stored=24_000, share=0.5, rate=0.01)
    assert whole.min_similarity is not None
    assert regions.min_similarity is not None
    assert whole.min_similarity < regions.min_similarity
    rates = [
        rate_of_many(TABLE.false_positive_rate(threshold.min_similarity), threshold.comparisons)
        for threshold in (whole, regions)
        if threshold.min_similarity is not None
    ]
    assert sum(rates) == pytest.approx(0.01, rel=1e-3)
    assert whole.applied_rate == pytest.approx(0.01, rel=1e-3)


def test_a_hit_that_scores_exactly_the_threshold_passes() -> None:
    threshold = strictest(score=TABLE.score(0.3))
    assert threshold.min_similarity is not None
    assert threshold.min_similarity == pytest.approx(0.3 - ROUNDING, abs=1e-9)
    assert threshold.min_similarity < 0.3


def test_without_a_bound_every_similarity_matches() -> None:
    threshold = strictest()
    assert threshold.min_similarity is None
    assert (threshold.min_score, threshold.applied_rate) == (0.0, 1.0)
    assert not threshold.extrapolated


def test_the_expected_false_positives_follow_from_the_rate_at_the_threshold() -> None:
    assert strictest().expected_false_positives(500) == 500
    threshold = strictest(score=TABLE.score(0.3))
    assert threshold.expected_false_positives(500) == pytest.approx(0.5)


def test_a_rate_that_the_data_does_not_support_is_flagged() -> None:
    assert not strictest(stored=1, rate=1e-5).extrapolated
    assert strictest(stored=1000, rate=1e-5).extrapolated


@pytest.mark.parametrize(
    "columns",
    [
        {"raw": [0, 0]},
        {"raw": [1, 0]},
        {"score": [0.5, 0.4]},
        {"score": [0, 1.1]},
        {"score": [-0.1, 1]},
        {"false_positive_rate": [0.1, 0.2]},
        {"false_positive_rate": [1, 0]},
        {"false_positive_rate": [1.5, 0.1]},
        {"raw": [0]},
        {"score": [0, 0.5, 1]},
    ],
)
def test_a_table_that_is_not_monotone_is_refused(columns: dict[str, list[float]]) -> None:
    valid: dict[str, list[float]] = {
        "raw": [0, 1],
        "score": [0, 1],
        "false_positive_rate": [1, 0.1],
    }
    with pytest.raises(CalibrationError):
        Calibration.from_columns(
            raw=columns.get("raw", valid["raw"]),
            score=columns.get("score", valid["score"]),
            false_positive_rate=columns.get("false_positive_rate", valid["false_positive_rate"]),
            extrapolated_below=0.1,
        )


def write(folder: Path, **changes: object) -> Path:
    table = {
        "model": "mine",
        "version": "2",
        "raw": [0, 1],
        "score": [0, 1],
        "false_positive_rate": [1, 0.1],
        "extrapolated_below": 0.1,
    }
    path = folder / "mine.json"
    path.write_text(json.dumps({**table, **changes}))
    return path


def test_tables_are_read_by_model_and_version(tmp_path: Path) -> None:
    write(tmp_path)
    calibrations = Calibrations.load([tmp_path])
    assert calibrations.of(ModelVersion("copy", "mine", "2")).score(0.5) == 0.5
    with pytest.raises(ServiceError) as caught:
        calibrations.of(ModelVersion("copy", "mine", "3"))
    assert caught.value.reason is Reason.MODEL_NOT_SERVED
    assert caught.value.metadata == {"model": "mine", "version": "3"}


def test_a_malformed_table_is_named(tmp_path: Path) -> None:
    for changes in ({"raw": [1, 0]}, {"raw": None}, {"score": ["a", "b"]}):
        path = write(tmp_path, **changes)
        with pytest.raises(CalibrationError, match=path.name):
            Calibrations.load([tmp_path])
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(CalibrationError, match=r"mine\.json"):
        Calibrations.load([tmp_path])


@pytest.mark.parametrize("name", ["sscd", "efficientnet_lite2"])
def test_the_built_in_tables_cover_the_default_models(name: str) -> None:
    table = Calibrations.load([BUILT_IN_TABLES]).of(ModelVersion("any", name, "1"))
    assert table.score(1.0) > 0.9
    assert table.score(0.0) < 0.5
    assert math.isfinite(table.false_positive_rate(1.0))


@pytest.mark.parametrize("background_similarity", [0.0, 0.2, 0.9])
def test_an_identical_picture_has_closeness_one(background_similarity: float) -> None:
    assert closeness(1.0, background_similarity) == pytest.approx(1.0)
    assert closeness(background_similarity, background_similarity) == 0.0


def test_a_higher_background_similarity_lowers_the_closeness() -> None:
    assert closeness(0.6, 0.5) < closeness(0.6, 0.1) < closeness(0.6, 0.0) == 0.6


@pytest.mark.parametrize("value", [-0.5, 0.0, 0.4, 1.0])
def test_similarity_of_closeness_inverts_closeness(value: float) -> None:
    assert closeness(similarity_of_closeness(value, 0.3), 0.3) == pytest.approx(value)
