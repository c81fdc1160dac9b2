"""Measure the recall of elements, and the time of each step.

    python -m tests.benchmarks.elements.measure            # without the dense model, one process
    python -m tests.benchmarks.elements.measure --suite    # through all services

Prints Markdown. "Found at 1 in 100" counts queries whose right element is first, with more evidence
than the best match in 99 of 100 photos without elements (negatives). Every second negative is used;
`imagesearch_services.models.elements.calibrate` uses the others.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from imagesearch_services.models.elements.dataset import (
    EDITIONS,
    REPORTED,
    Benchmark,
    Query,
    prepare,
)
from imagesearch_services.models.elements.sources import KINDS
from imagesearch_services.models.elements.suite import (
    MIN_EVIDENCE,
    Answer,
    Corners,
    answers_folder,
    suite_answers,
)
from tests.benchmarks.elements.offline import CANDIDATES, search_all

IOU = 0.5
"""Intersection over union that a correct localization exceeds."""
FALSE_POSITIVE_RATE = 0.01
"""Share of the negatives whose evidence exceeds the threshold."""
PLAIN = "plain"
"""Kind of the negatives without a pasted element; the others show elements that are not stored."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to a query that shows elements."""

    query: Query
    answer: Answer

    @property
    def rank(self) -> int | None:
        """Rank of the first element shown, from 0; None if it was not found."""
        names = [appearance.element for appearance in self.query.appearances]
        return self.answer.rank(names[0], names[1:]) if names else None

    @property
    def evidence(self) -> float:
        """Evidence for the first element shown."""
        hit = self.answer.hit(self.query.appearances[0].element)
        return hit.evidence if hit else MIN_EVIDENCE

    @property
    def iou(self) -> float:
        """Intersection over union of the best instance with a true outline of the first element."""
        name = self.query.appearances[0].element
        hit = self.answer.hit(name)
        outlines = [
            np.array(appearance.corners)
            for appearance in self.query.appearances
            if appearance.element == name
        ]
        if hit is None or not hit.corners:
            return 0.0
        return max(outline_iou(hit.corners[0], outline) for outline in outlines)

    @property
    def instance_share(self) -> float:
        """Share of all true outlines, of all elements, that were found."""
        found = 0
        for appearance in self.query.appearances:
            hit = self.answer.hit(appearance.element)
            outline = np.array(appearance.corners)
            if hit is not None and any(
                outline_iou(corners, outline) > IOU for corners in hit.corners
            ):
                found += 1
        return found / len(self.query.appearances)


def outline_iou(first: Corners, second: Corners) -> float:
    """Return the intersection over union of two outlines."""
    a, b = (shapely.MultiPoint(corners).convex_hull for corners in (first, second))
    return float(a.intersection(b).area / max(a.union(b).area, 1e-6))


def process_answers(benchmark: Benchmark, candidates: int) -> dict[str, Answer]:
    """Search all photos in this process; returns the answers by file."""
    results = search_all(benchmark, candidates)
    return {
        photo.file: Answer([(benchmark.elements[hit.row].id, hit) for hit in hits], 0.0, {})
        for photos, hits_by_photo in (
            (benchmark.queries, results.queries),
            (benchmark.negatives, results.negatives),
        )
        for photo, hits in zip(photos, hits_by_photo, strict=True)
    }


def report(
    outcomes: Sequence[Outcome],
    false_evidence: Sequence[float],
    false_evidence_plain: Sequence[float],
) -> Iterator[str]:
    """Yield the lines of the report.

    Args:
        outcomes: Outcomes of the queries that show elements.
        false_evidence: Highest evidence in each negative.
        false_evidence_plain: Highest evidence in each plain negative.
    """
    threshold, plain_threshold = _threshold(false_evidence), _threshold(false_evidence_plain)
    yield (
        "| elements | n | right first | in the first 10 | found at 1 in 100 negatives "
        "| found at 1 in 100 plain negatives | corners, IoU > .5 |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for kind in (*KINDS, "all"):
        of_kind = [outcome for outcome in outcomes if kind in {outcome.query.kind, "all"}]
        if not of_kind:
            continue
        first = [outcome for outcome in of_kind if outcome.rank == 0]
        ten = [outcome for outcome in of_kind if outcome.rank is not None and outcome.rank < 10]
        found = [outcome for outcome in first if outcome.evidence > threshold]
        found_plain = [outcome for outcome in first if outcome.evidence > plain_threshold]
        localized = [outcome for outcome in first if outcome.iou > IOU]
        cells = [len(first), len(ten), len(found), len(found_plain)]
        shares = " | ".join(f"{count / len(of_kind):.3f}" for count in cells)
        yield f"| {kind} | {len(of_kind)} | {shares} | {len(localized) / max(1, len(first)):.3f} |"
    with_two = [outcome for outcome in outcomes if len(outcome.query.appearances) > 1]
    yield ""
    yield (
        f"Threshold {threshold:.2f} from {len(false_evidence)} negatives, {plain_threshold:.2f} "
        f"from the {len(false_evidence_plain)} plain negatives, without any pattern or logo."
    )
    if with_two:
        share = np.mean([outcome.instance_share for outcome in with_two])
        yield (
            f"In photos with two instances, {share:.2f} of the instances were found "
            f"(n={len(with_two)})."
        )
    steps: dict[str, list[float]] = {}
    for outcome in outcomes:
        for step, duration_ms in outcome.answer.steps_ms.items():
            steps.setdefault(step, []).append(duration_ms)
    if not steps:
        return
    yield ""
    yield "| step | p50, ms | p95, ms |"
    yield "|---|---:|---:|"
    for step, durations in steps.items():
        yield f"| {step} | {np.median(durations):.0f} | {np.quantile(durations, 0.95):.0f} |"


def _threshold(false_evidence: Sequence[float]) -> float:
    """Return the evidence that a share `FALSE_POSITIVE_RATE` of the negatives exceeds."""
    if not false_evidence:
        return 0.0
    return float(np.quantile(false_evidence, 1 - FALSE_POSITIVE_RATE))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--elements", type=int, default=1080)
    parser.add_argument("--queries", type=int, default=460)
    parser.add_argument("--negatives", type=int, default=520)
    parser.add_argument("--edition", choices=EDITIONS, default=REPORTED.name)
    parser.add_argument("--candidates", type=int, default=CANDIDATES)
    parser.add_argument("--suite", action="store_true", help="search through all services")
    parser.add_argument(
        "--discard-answers", action="store_true", help="discard cached answers of the suite"
    )
    options = parser.parse_args()
    benchmark = prepare(
        options.elements, options.queries, options.negatives, edition=EDITIONS[options.edition]
    )
    if options.discard_answers:
        shutil.rmtree(answers_folder(benchmark), ignore_errors=True)
    if options.suite:
        answers = suite_answers(benchmark)
    else:
        answers = process_answers(benchmark, options.candidates)
    outcomes = [
        Outcome(query, answers[query.file]) for query in benchmark.queries if query.appearances
    ]
    negatives = benchmark.negatives[1::2]
    false_evidence = [answers[photo.file].best for photo in negatives]
    false_evidence_plain = [answers[photo.file].best for photo in negatives if photo.kind == PLAIN]
    print("\n".join(report(outcomes, false_evidence, false_evidence_plain)))  # noqa: T201


if __name__ == "__main__":
    main()
