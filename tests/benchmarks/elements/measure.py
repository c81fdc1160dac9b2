"""How well elements are found, and where the time goes.

    python -m tests.benchmarks.elements.measure            # local features alone, in this process
    python -m tests.benchmarks.elements.measure --suite    # through every service

Prints Markdown. "Found" counts the right element first with more evidence than all but 1 in 100 of
the photos without have; of these every second one is used, those that calibrate.py does not see.
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
    LEAST_EVIDENCE,
    Answer,
    Corners,
    answers_folder,
    suite_answers,
)
from tests.benchmarks.elements.offline import CANDIDATES, search_all

IOU = 0.5
ALLOWED_WRONG = 0.01
PLAIN = "plain"
"""Photos with nothing pasted into them; others show what is not stored."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one query with elements."""

    query: Query
    answer: Answer

    @property
    def rank(self) -> int | None:
        names = [one.element for one in self.query.appearances]
        return self.answer.rank(names[0], names[1:]) if names else None

    @property
    def evidence(self) -> float:
        hit = self.answer.hit(self.query.appearances[0].element)
        return hit.evidence if hit else LEAST_EVIDENCE

    @property
    def iou(self) -> float:
        """Overlap of the best instance with any true place of the first element."""
        name = self.query.appearances[0].element
        hit = self.answer.hit(name)
        places = [np.array(one.corners) for one in self.query.appearances if one.element == name]
        if hit is None or not hit.corners:
            return 0.0
        return max(overlap(hit.corners[0], place) for place in places)

    @property
    def instance_share(self) -> float:
        """Share of all true places, of all elements, that were told."""
        told = 0
        for one in self.query.appearances:
            hit = self.answer.hit(one.element)
            place = np.array(one.corners)
            if hit is not None and any(overlap(each, place) > IOU for each in hit.corners):
                told += 1
        return told / len(self.query.appearances)


def overlap(first: Corners, second: Corners) -> float:
    """Give the intersection over the union of two outlines."""
    a, b = (shapely.MultiPoint(each).convex_hull for each in (first, second))
    return float(a.intersection(b).area / max(a.union(b).area, 1e-6))


def process_answers(benchmark: Benchmark, candidates: int) -> dict[str, Answer]:
    """Answer every photo by local features, by file."""
    searched = search_all(benchmark, candidates)
    return {
        one.file: Answer([(benchmark.elements[hit.row].id, hit) for hit in hits], 0.0, {})
        for several, those in (
            (benchmark.queries, searched.queries),
            (benchmark.negatives, searched.negatives),
        )
        for one, hits in zip(several, those, strict=True)
    }


def report(
    outcomes: Sequence[Outcome], wrong: Sequence[float], wrong_plain: Sequence[float]
) -> Iterator[str]:
    """Write the tables."""
    threshold, plain_threshold = _threshold(wrong), _threshold(wrong_plain)
    yield (
        "| elements | n | right first | in the first 10 | found at 1 in 100 | … plain photos "
        "| IoU > .5 |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for kind in (*KINDS, "all"):
        several = [one for one in outcomes if kind in {one.query.kind, "all"}]
        if not several:
            continue
        first = [one for one in several if one.rank == 0]
        ten = [one for one in several if one.rank is not None and one.rank < 10]
        found = [one for one in first if one.evidence > threshold]
        found_plain = [one for one in first if one.evidence > plain_threshold]
        placed = [one for one in first if one.iou > IOU]
        cells = [len(first), len(ten), len(found), len(found_plain)]
        shares = " | ".join(f"{count / len(several):.3f}" for count in cells)
        yield f"| {kind} | {len(several)} | {shares} | {len(placed) / max(1, len(first)):.3f} |"
    several = [one for one in outcomes if len(one.query.appearances) > 1]
    yield ""
    yield (
        f"Threshold {threshold:.2f} from {len(wrong)} photos without, {plain_threshold:.2f} from "
        f"the {len(wrong_plain)} of them without any pattern or logo."
    )
    if several:
        share = np.mean([one.instance_share for one in several])
        yield f"Of photos with two places, {share:.2f} of the places were told (n={len(several)})."
    steps: dict[str, list[float]] = {}
    for one in outcomes:
        for step, duration_ms in one.answer.steps_ms.items():
            steps.setdefault(step, []).append(duration_ms)
    if not steps:
        return
    yield ""
    yield "| step | p50, ms | p95, ms |"
    yield "|---|---:|---:|"
    for step, durations in steps.items():
        yield f"| {step} | {np.median(durations):.0f} | {np.quantile(durations, 0.95):.0f} |"


def _threshold(wrong: Sequence[float]) -> float:
    return float(np.quantile(wrong, 1 - ALLOWED_WRONG)) if wrong else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--elements", type=int, default=1080)
    parser.add_argument("--queries", type=int, default=460)
    parser.add_argument("--negatives", type=int, default=520)
    parser.add_argument("--edition", choices=EDITIONS, default=REPORTED.name)
    parser.add_argument("--candidates", type=int, default=CANDIDATES)
    parser.add_argument("--suite", action="store_true")
    parser.add_argument("--anew", action="store_true", help="forget what the suite answered")
    options = parser.parse_args()
    benchmark = prepare(
        options.elements, options.queries, options.negatives, edition=EDITIONS[options.edition]
    )
    if options.anew:
        shutil.rmtree(answers_folder(benchmark), ignore_errors=True)
    if options.suite:
        answers = suite_answers(benchmark)
    else:
        answers = process_answers(benchmark, options.candidates)
    outcomes = [Outcome(one, answers[one.file]) for one in benchmark.queries if one.appearances]
    judged = benchmark.negatives[1::2]
    wrong = [answers[one.file].best for one in judged]
    wrong_plain = [answers[one.file].best for one in judged if one.kind == PLAIN]
    print("\n".join(report(outcomes, wrong, wrong_plain)))  # noqa: T201


if __name__ == "__main__":
    main()
