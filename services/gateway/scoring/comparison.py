"""Comparison of two pictures: verdict, score and likely edits from the measures of Embedding.

A logistic model combines several measures into the evidence that one picture is an edit of the
other. A table that was fitted for these weights maps the evidence to a score and to a
false-positive rate. Both are committed; the script in services/models/comparison makes them.
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
"""Folder of the committed tables."""

SAME_PIXELS_MSE = 0.5
"""Maximum mean squared difference, in squared levels of 0 to 255, of pictures that are always the
same. Blank pages have no other measure to decide by."""
CONTAINED_POWER = 4
"""Exponent of the share of a picture that the other covers: a share of nine tenths costs little
evidence, a share of one half nearly all of it."""
MAX_BEND = 0.06
"""Maximum local displacement that the Embedding service measures, as a share of the long side."""
RIGID_PX = 0.2
"""Maximum displacement of parts from their position under a single homography, in pixels, in an
edited copy."""
NON_RIGID_PX = 0.6
"""Displacement of parts from their position under a single homography, in pixels, in two photos of
one shelf."""
CHANCE_INLIERS = 10.0
"""Number of inliers that two unrelated pictures have by chance."""
MAX_INLIERS = 400.0
"""Number of inliers above which more inliers add no evidence."""


class Verdict(enum.IntEnum):
    """Relation between two compared pictures; the values of `imagesearch.gateway.v1.Verdict`."""

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
    def public_name(self) -> str:
        """Name of the edit in the public contract; a rotation includes its degrees."""
        if self.name == "rotated" and self.amount is not None:
            return f"rotated_{round(self.amount) % 360}"
        return self.name


@dataclass(frozen=True, slots=True)
class MeasuredPair:
    """The measures of two pictures by the Embedding service."""

    infos: tuple[PictureInfo, PictureInfo]
    measures: Mapping[str, float]
    edits: Sequence[LikelyEdit]
    overlay: bytes
    model: ModelVersion
    timings: Sequence[StepTiming]


@dataclass(frozen=True, slots=True)
class ComparisonAnswer:
    """Result of comparing two pictures."""

    verdict: Verdict
    score: float
    """Calibrated evidence that the pictures are the same, 0 to 1."""
    false_positive_rate: float
    """Share of pictures whose nearest non-copy has at least this evidence."""
    likely_edits: Sequence[str]
    pair: MeasuredPair
    timings: Sequence[StepTiming]


class ComparesPictures(Protocol):
    """The part of the Embedding service that compares."""

    async def compare(self, first: bytes, second: bytes, *, draw: bool) -> MeasuredPair:
        """Measure two pictures, and draw their overlay if requested."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Weights and thresholds for the measures, for one copy descriptor."""

    bias: float
    weights: Mapping[str, float]
    calibration: Calibration
    """Maps evidence to score and false-positive rate."""
    same_evidence: float
    """Minimum evidence for the verdict SAME_PICTURE."""
    related_evidence: float
    """Minimum evidence for the verdict RELATED."""
    related_semantic_similarity: float
    """Minimum semantic similarity for the verdict RELATED if the evidence is below its minimum."""

    @classmethod
    def load(cls, path: Path) -> tuple[str, Judge]:
        """Read a table and return it with its vector space.

        Raises:
            CalibrationError: a table is malformed; the message names its file.
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
        """Return the log odds that the pictures are the same, from the measures."""
        known = features(measures)
        return self.bias + sum(weight * known[name] for name, weight in self.weights.items())

    def verdict(self, measures: Mapping[str, float]) -> Verdict:
        """Return the verdict on two different files."""
        evidence = self.evidence(measures)
        if evidence >= self.same_evidence or has_same_pixels(measures):
            return Verdict.SAME_PICTURE
        is_alike = measures.get("semantic_similarity", -1.0) >= self.related_semantic_similarity
        if evidence >= self.related_evidence or is_alike:
            return Verdict.RELATED
        return Verdict.DIFFERENT


def features(measures: Mapping[str, float]) -> dict[str, float]:
    """Return the features of the logistic model. Features of a missing alignment are 0.

    An edited copy lies inside its original, or the original inside the copy, and both agree in the
    overlap. Two photos of one scene agree as well, but each shows parts that the other does not,
    parts are displaced locally, and near parts are displaced more than far parts (parallax).
    """
    shown = max(measures.get("shown_of_a", 0.0), measures.get("shown_of_b", 0.0))
    # Local displacements push parts of a contained picture over the outline on two sides.
    contained = min(1.0, shown + 2 * measures.get("bend", 0.0))
    agreement = measures.get("agreement", 0.0) * contained**CONTAINED_POWER
    bend = min(measures.get("bend", 0.0) / MAX_BEND, 1.0)
    inliers = min(measures.get("inlier_count", 0.0), MAX_INLIERS)
    closeness = (measures.get("copy_closeness", 0.0), measures.get("aligned_copy_closeness", 0.0))
    return {
        "closeness": max(0.0, *closeness),
        "agreement": agreement,
        "straight_agreement": agreement * (1 - bend),
        "rigidity": _rigidity(measures.get("displacement_px", NON_RIGID_PX)),
        "matched_agreement": agreement * max(0.0, math.log(max(inliers, 1.0) / CHANCE_INLIERS)),
    }


def _rigidity(displacement_px: float) -> float:
    """Return 1 if a single homography explains the displacements, 0 if no homography can."""
    log_ratio = math.log(NON_RIGID_PX / max(displacement_px, RIGID_PX))
    return max(0.0, log_ratio / math.log(NON_RIGID_PX / RIGID_PX))


def has_same_pixels(measures: Mapping[str, float]) -> bool:
    """Return whether the pictures differ by no more than re-encoding."""
    return measures.get("mse", math.inf) <= SAME_PIXELS_MSE


class Comparisons:
    """Compares pictures."""

    def __init__(self, embedding: ComparesPictures, judges: Mapping[str, Judge]) -> None:
        """Create the service.

        Args:
            embedding: service that measures two pictures.
            judges: judges by vector space, "NAME@VERSION".
        """
        self._embedding = embedding
        self._judges = judges

    async def compare(self, first: bytes, second: bytes, *, draw: bool) -> ComparisonAnswer:
        """Compare two pictures.

        Raises:
            ServiceError: errors of the Embedding service; MODEL_NOT_SERVED without a table.
        """
        stopwatch = Stopwatch()
        pair = await self._embedding.compare(first, second, draw=draw)
        judge = self._judges.get(pair.model.space)
        if judge is None:
            raise ServiceError(
                Reason.MODEL_NOT_SERVED,
                f"there is no comparison table for the model {pair.model.space}",
                metadata={"model": pair.model.name, "version": pair.model.version},
            )
        verdict, score, rate = _judge(judge, pair)
        stopwatch.extend(pair.timings)
        return ComparisonAnswer(
            verdict=verdict,
            score=score,
            false_positive_rate=rate,
            likely_edits=_likely_edits(verdict, pair.edits),
            pair=pair,
            timings=stopwatch.timings(),
        )


def load_judges(folders: Iterable[Path] = (BUILT_IN_JUDGES,)) -> Mapping[str, Judge]:
    """Read every table in the folders, by vector space; a later folder overrides an earlier one.

    Raises:
        CalibrationError: a table is malformed; the message names its file.
    """
    return dict(Judge.load(path) for folder in folders for path in sorted(folder.glob("*.json")))


def _judge(judge: Judge, pair: MeasuredPair) -> tuple[Verdict, float, float]:
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


def _likely_edits(verdict: Verdict, edits: Sequence[LikelyEdit]) -> list[str]:
    """Return the names of the edits if the pictures are the same."""
    if verdict is not Verdict.SAME_PICTURE:
        return []
    return [edit.public_name for edit in edits] or ["re_encoded"]
