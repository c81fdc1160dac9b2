"""Verdict, score and likely edits from the measures of two pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import ModelVersion, PictureInfo, StepTiming
from imagesearch_services.gateway.scoring.calibration import CalibrationError
from imagesearch_services.gateway.scoring.comparison import (
    BUILT_IN_JUDGES,
    Comparisons,
    Judge,
    LikelyEdit,
    MeasuredPair,
    Verdict,
    features,
    load_judges,
)

SPACE = "sscd@1"
JUDGE = load_judges()[SPACE]

COPY = {
    "mse": 900.0,
    "copy_closeness": 0.9,
    "aligned_copy_closeness": 0.95,
    "inlier_count": 300.0,
    "agreement": 0.97,
    "shown_of_a": 1.0,
    "shown_of_b": 1.0,
    "bend": 0.0,
    "displacement_px": 0.1,
}
RELATED = {
    "mse": 4000.0,
    "copy_closeness": 0.3,
    "inlier_count": 12.0,
    "agreement": 0.3,
    "shown_of_a": 0.7,
    "shown_of_b": 0.6,
    "bend": 0.05,
    "semantic_similarity": 0.8,
}
UNRELATED = {"mse": 9000.0, "copy_closeness": -0.2, "semantic_similarity": 0.2}


@dataclass
class FakeEmbedding:
    """An Embedding service that returns the same measures for every pair."""

    pair: MeasuredPair
    drawn: list[bool] = field(default_factory=list)

    async def compare(self, first: bytes, second: bytes, *, draw: bool) -> MeasuredPair:
        assert first
        assert second
        self.drawn.append(draw)
        return self.pair


def info(sha256: str) -> PictureInfo:
    return PictureInfo(640, 480, 1000, sha256, "image/jpeg", 100.0)


def measured(measures: Mapping[str, float], *, same_file: bool = False) -> MeasuredPair:
    return MeasuredPair(
        infos=(info("a"), info("a" if same_file else "b")),
        measures=measures,
        edits=[LikelyEdit("rotated", 269.8), LikelyEdit("cropped", 0.5)],
        overlay=b"",
        model=ModelVersion("copy", "sscd", "1"),
        timings=[StepTiming("align", 50.0), StepTiming("total", 60.0)],
    )


def comparisons(pair: MeasuredPair) -> Comparisons:
    return Comparisons(FakeEmbedding(pair), {SPACE: JUDGE})


@pytest.mark.parametrize(
    ("measures", "verdict"),
    [
        (COPY, Verdict.SAME_PICTURE),
        (RELATED, Verdict.RELATED),
        (UNRELATED, Verdict.DIFFERENT),
        ({}, Verdict.DIFFERENT),
    ],
)
async def test_the_verdict_follows_from_the_measures(
    measures: Mapping[str, float], verdict: Verdict
) -> None:
    answer = await comparisons(measured(measures)).compare(b"a", b"b", draw=False)
    assert answer.verdict is verdict
    is_same = verdict is Verdict.SAME_PICTURE
    assert (answer.score > 0.8) == is_same
    assert (answer.false_positive_rate <= 0.005) == is_same
    assert list(answer.likely_edits) == (["rotated_270", "cropped"] if is_same else [])


async def test_identical_files_have_the_verdict_identical_file() -> None:
    answer = await comparisons(measured(UNRELATED, same_file=True)).compare(b"a", b"a", draw=False)
    assert answer.verdict is Verdict.IDENTICAL_FILE
    assert answer.score == 1
    assert not answer.likely_edits


async def test_the_same_pixels_in_another_file_are_re_encoded() -> None:
    pair = replace(measured({"mse": 0.0}), edits=[])
    answer = await comparisons(pair).compare(b"a", b"b", draw=False)
    assert answer.verdict is Verdict.SAME_PICTURE
    assert answer.likely_edits == ["re_encoded"]
    assert answer.false_positive_rate <= 0.005


async def test_the_total_is_measured_by_the_gateway() -> None:
    answer = await comparisons(measured(COPY)).compare(b"a", b"b", draw=True)
    assert [step.step for step in answer.timings] == ["align", "total"]
    assert answer.timings[-1].duration_ms < 60


async def test_a_model_without_a_table_is_named() -> None:
    pair = replace(measured(COPY), model=ModelVersion("copy", "other", "7"))
    with pytest.raises(ServiceError) as caught:
        await comparisons(pair).compare(b"a", b"b", draw=False)
    assert caught.value.reason is Reason.MODEL_NOT_SERVED
    assert caught.value.metadata == {"model": "other", "version": "7"}


def test_parts_that_only_one_picture_shows_are_evidence_against_a_copy() -> None:
    beside = COPY | {"shown_of_a": 0.6, "shown_of_b": 0.6}
    cropped = COPY | {"shown_of_a": 0.2}
    assert JUDGE.evidence(beside) < JUDGE.evidence(cropped) == JUDGE.evidence(COPY)


def test_displacement_that_no_homography_explains_is_evidence_against_a_copy() -> None:
    values = [
        features(COPY | {"displacement_px": px})["rigidity"] for px in (0.0, 0.2, 0.4, 0.6, 9)
    ]
    assert values == sorted(values, reverse=True)
    assert (values[0], values[-1]) == (1.0, 0.0)
    del (unknown := dict(COPY))["displacement_px"]
    assert features(unknown)["rigidity"] == 0.0


@pytest.mark.parametrize("measure", ["copy_closeness", "agreement", "inlier_count", "shown_of_a"])
def test_evidence_is_monotone_in_each_measure(measure: str) -> None:
    values = [0, 0.1, 0.5, 0.9, 1, 50, 5000]
    evidence = [JUDGE.evidence(COPY | {measure: value}) for value in values if value >= 0]
    assert evidence == sorted(evidence)


def test_features_without_measures_are_zero() -> None:
    assert not any(features({}).values())


def test_the_built_in_table_keeps_the_documented_rate() -> None:
    calibration = JUDGE.calibration
    assert calibration.false_positive_rate(JUDGE.same_evidence) <= 0.005
    assert calibration.score(JUDGE.same_evidence) >= 0.5
    assert JUDGE.related_evidence < JUDGE.same_evidence
    assert calibration.score(math.inf) == pytest.approx(1, abs=1e-3)


BROKEN = {
    "no weights": {"weights": None},
    "an unknown measure": {"weights": {"beauty": 1.0}},
    "rates that rise": {"false_positive_rate": [0.1, 0.2]},
    "no threshold": {"same": {}},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_table_is_named(name: str, tmp_path: Path) -> None:
    table = json.loads((BUILT_IN_JUDGES / "sscd.json").read_text()) | BROKEN[name]
    (tmp_path / "broken.json").write_text(json.dumps(table))
    with pytest.raises(CalibrationError, match=r"broken\.json"):
        Judge.load(tmp_path / "broken.json")
