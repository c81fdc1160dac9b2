"""What two pictures are to each other: the measures of the Embedding service, judged.

Several measures are weighed into one piece of evidence that one picture is an edit of the other
(logistic regression); a table, made with the weights, says how often pictures that are none reach
as much. Both are committed, with the script that makes them: services/models/comparison.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.common.types import ModelVersion, PictureInfo, StepTiming
from imagesearch_services.gateway.scoring.calibration import Calibration, CalibrationError

BUILT_IN_JUDGES = Path(__file__).parent / "tables" / "comparison"

SAME_PIXELS_MSE = 0.5
"""Pictures that differ by less, in levels of 255 squared, are the same whatever they show: a blank
page has nothing else to be told by."""
CONTAINED_POWER = 4
"""A picture that shows nine tenths of the other loses little by it, one that shows half nearly
all."""
MOST_BEND = 0.06
"""As far as the Embedding service bends."""
STRAIGHT_PX = 0.2
"""Parts that lie no farther from one homography lie where an edit leaves them."""
ASKEW_PX = 0.6
"""So far they lie in two photos of one shelf."""
CHANCE_INLIERS = 10.0
"""So many features agree on some movement of any two pictures."""
MOST_INLIERS = 400.0
"""More tell no more."""


class Verdict(enum.IntEnum):
    """As in the public contract."""

    IDENTICAL_FILE = 1
    SAME_PICTURE = 2
    RELATED = 3
    DIFFERENT = 4


@dataclass(frozen=True, slots=True)
class LikelyEdit:
    """An edit that may have made the second picture from the first."""

    name: str
    amount: float | None

    @property
    def word(self) -> str:
        """Name it as the public contract does: rotations with their degrees."""
        if self.name == "rotated" and self.amount is not None:
            return f"rotated_{round(self.amount) % 360}"
        return self.name


@dataclass(frozen=True, slots=True)
class MeasuredPair:
    """What the Embedding service tells of two pictures."""

    infos: tuple[PictureInfo, PictureInfo]
    measures: Mapping[str, float]
    edits: Sequence[LikelyEdit]
    overlay: bytes
    model: ModelVersion
    timings: Sequence[StepTiming]


@dataclass(frozen=True, slots=True)
class ComparisonAnswer:
    """How two pictures compare."""

    verdict: Verdict
    score: float
    """That they are the same picture, 0 to 1."""
    false_positive_rate: float
    """How often a picture and the nearest that is no copy of it have this much evidence."""
    likely_edits: Sequence[str]
    pair: MeasuredPair
    timings: Sequence[StepTiming]


class ComparesPictures(Protocol):
    """The part of the Embedding service that compares."""

    async def compare(self, first: bytes, second: bytes, *, draw: bool) -> MeasuredPair:
        """Measure two pictures; the overlay is drawn on request."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Weights and thresholds for the measures of one copy descriptor."""

    bias: float
    weights: Mapping[str, float]
    calibration: Calibration
    """From evidence to score and rate."""
    same_evidence: float
    """From here on it is the same picture."""
    related_evidence: float
    related_semantic_similarity: float
    """From either on they are related."""

    @classmethod
    def load(cls, path: Path) -> tuple[str, Judge]:
        """Read a table and the vector space that it is for.

        Raises:
            CalibrationError: naming the file that can't be used.
        """
        try:
            table: dict[str, Any] = json.loads(path.read_text())
            judge = cls(
                bias=float(table["bias"]),
                weights={name: float(weight) for name, weight in table["weights"].items()},
                calibration=Calibration.from_columns(
                    raw=table["raw"],
                    score=table["score"],
                    false_positive_rate=table["false_positive_rate"],
                    extrapolated_below=table["extrapolated_below"],
                ),
                same_evidence=float(table["same"]["evidence"]),
                related_evidence=float(table["related"]["evidence"]),
                related_semantic_similarity=float(table["related"]["semantic_similarity"]),
            )
            judge.evidence({})
            return f"{table['model']}@{table['version']}", judge
        except (CalibrationError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(f"{path}: {error!s}") from error

    def evidence(self, measures: Mapping[str, float]) -> float:
        """Weigh the measures; 0 is as likely the same picture as not, higher is likelier."""
        known = features(measures)
        return self.bias + sum(weight * known[name] for name, weight in self.weights.items())

    def verdict(self, measures: Mapping[str, float]) -> Verdict:
        """Say what two different files are to each other."""
        evidence = self.evidence(measures)
        if evidence >= self.same_evidence or has_same_pixels(measures):
            return Verdict.SAME_PICTURE
        is_alike = measures.get("semantic_similarity", -1.0) >= self.related_semantic_similarity
        if evidence >= self.related_evidence or is_alike:
            return Verdict.RELATED
        return Verdict.DIFFERENT


def features(measures: Mapping[str, float]) -> dict[str, float]:
    """Give what is weighed, from the measures; those of an alignment that is missing are 0.

    An edited copy lies in its original, or the original in it, and agrees wherever both are seen.
    Two photos of one scene agree as well, but each shows what the other does not, parts must be
    bent to fit, and what is near moves farther than what is far.
    """
    shown = max(measures.get("shown_of_a", 0.0), measures.get("shown_of_b", 0.0))
    # What is bent leaves the outline on two sides.
    contained = min(1.0, shown + 2 * measures.get("bend", 0.0))
    agreement = measures.get("agreement", 0.0) * contained**CONTAINED_POWER
    bend = min(measures.get("bend", 0.0) / MOST_BEND, 1.0)
    inliers = min(measures.get("inlier_count", 0.0), MOST_INLIERS)
    closeness = (measures.get("copy_closeness", 0.0), measures.get("aligned_copy_closeness", 0.0))
    return {
        "closeness": max(0.0, *closeness),
        "agreement": agreement,
        "straight_agreement": agreement * (1 - bend),
        "rigidity": _rigidity(measures.get("displacement_px", ASKEW_PX)),
        "matched_agreement": agreement * max(0.0, math.log(max(inliers, 1.0) / CHANCE_INLIERS)),
    }


def _rigidity(displacement_px: float) -> float:
    """Give 1 for what one homography moved, 0 for what none can."""
    excess = math.log(ASKEW_PX / max(displacement_px, STRAIGHT_PX))
    return max(0.0, excess / math.log(ASKEW_PX / STRAIGHT_PX))


def has_same_pixels(measures: Mapping[str, float]) -> bool:
    """Say whether the pictures are the same but for what a codec does."""
    return measures.get("mse", math.inf) <= SAME_PIXELS_MSE


class Comparisons:
    """Compares pictures."""

    def __init__(self, embedding: ComparesPictures, judges: Mapping[str, Judge]) -> None:
        """Take judges by vector space, "NAME@VERSION"."""
        self._embedding = embedding
        self._judges = judges

    async def compare(self, first: bytes, second: bytes, *, draw: bool) -> ComparisonAnswer:
        """Tell what two pictures are to each other.

        Raises:
            ServiceError: as the Embedding service; MODEL_NOT_SERVED for a model without a table.
        """
        stopwatch = Stopwatch()
        pair = await self._embedding.compare(first, second, draw=draw)
        judge = self._judges.get(pair.model.space)
        if judge is None:
            raise ServiceError(
                Reason.MODEL_NOT_SERVED,
                f"there is no comparison table for {pair.model.space}",
                metadata={"model": pair.model.name, "version": pair.model.version},
            )
        verdict, score, rate = _judged(judge, pair)
        stopwatch.extend(pair.timings)
        return ComparisonAnswer(
            verdict=verdict,
            score=score,
            false_positive_rate=rate,
            likely_edits=_told(verdict, pair.edits),
            pair=pair,
            timings=stopwatch.timings(),
        )


def load_judges(folders: Iterable[Path] = (BUILT_IN_JUDGES,)) -> Mapping[str, Judge]:
    """Read every table in the folders, by vector space; a later folder overrides an earlier one.

    Raises:
        CalibrationError: naming the file that can't be used.
    """
    return dict(Judge.load(path) for folder in folders for path in sorted(folder.glob("*.json")))


def _judged(judge: Judge, pair: MeasuredPair) -> tuple[Verdict, float, float]:
    calibration = judge.calibration
    if pair.infos[0].sha256 == pair.infos[1].sha256:
        return Verdict.IDENTICAL_FILE, 1.0, calibration.false_positive_rate(math.inf)
    evidence = judge.evidence(pair.measures)
    if has_same_pixels(pair.measures):
        evidence = max(evidence, judge.same_evidence)
    return (
        judge.verdict(pair.measures),
        calibration.score(evidence),
        calibration.false_positive_rate(evidence),
    )


def _told(verdict: Verdict, edits: Sequence[LikelyEdit]) -> list[str]:
    """Give the edits of the same picture; nothing was edited into a different one."""
    if verdict is not Verdict.SAME_PICTURE:
        return []
    return [edit.word for edit in edits] or ["re_encoded"]
