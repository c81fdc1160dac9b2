"""Extrapolated tails, which calibration tables are made from."""

from __future__ import annotations

import numpy as np
import pytest

from imagesearch_services.models.common.calibration_table import ComparisonTail
from imagesearch_services.models.common.tails import TAIL_SHARE, ExponentialTail

VALUES = np.sort(np.random.default_rng(0).exponential(0.1, 10_000))


def test_rates_below_the_tail_are_counted() -> None:
    tail = ExponentialTail.of(VALUES)
    at = VALUES[[0, 5_000]]
    assert tail.rates(at).tolist() == [1.0, 0.5]


def test_the_tail_is_the_highest_tenth_of_the_values() -> None:
    tail = ExponentialTail.of(VALUES)
    assert tail.share == TAIL_SHARE
    assert tail.start == VALUES[-1_000]


def test_rates_beyond_the_data_continue_the_exponential_tail() -> None:
    at = np.array([1.0, 1.5, 2.0])
    assert ExponentialTail.of(VALUES).rates(at) == pytest.approx(np.exp(-at / 0.1), rel=0.9)


def test_the_rate_of_one_comparison_predicts_the_share_of_queries_with_a_wrong_answer() -> None:
    comparisons = 200
    values = np.random.default_rng(1).random((400, comparisons)).astype(np.float32)
    tail = ComparisonTail.of(values, np.arange(400))
    at = np.array([0.999])
    share = (values.max(axis=1) >= at).mean()
    assert 1 - (1 - tail.rates(at)) ** comparisons == pytest.approx(share, abs=0.02)


def test_single_comparisons_are_counted_where_nearly_every_query_has_a_wrong_answer() -> None:
    values = np.random.default_rng(2).random((100, 1_000)).astype(np.float32)
    tail = ComparisonTail.of(values, np.arange(100))
    assert tail.rates(np.array([0.25]))[0] == pytest.approx(0.75, abs=0.01)


def test_the_lowest_resolved_rate_shrinks_with_queries_and_comparisons() -> None:
    values = np.zeros((50, 20), np.float32)
    assert ComparisonTail.of(values, np.arange(50)).resolved == pytest.approx(5 / 50 / 20)
