"""Scores of search engines on the queries of the copies benchmark.

Every engine returns candidates with a similarity on its own scale. To compare engines independently
of their scales, the threshold of each engine is the similarity that 1 in 100 strangers of the
benchmark exceed. The default threshold of an engine is scored too, if it has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from imagesearch_services.models.copies.edits import EDITS
from imagesearch_services.models.copies.placements import PLACEMENTS, PixelBox
from imagesearch_services.models.copies.queries import SERIES_STRANGER, STRANGER, Query

ALLOWED_STRANGERS = 0.01
"""Share of strangers that exceed an engine's threshold."""
SCREENSHOTS = tuple(kind for kind in PLACEMENTS if kind.startswith("screenshot"))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored picture in the result of a search."""

    name: str
    similarity: float
    """Similarity on the scale of the engine; higher is closer."""
    is_answer: bool = True
    """Whether it passes the default threshold of the engine."""
    box: PixelBox | None = None
    """The matching part of the query, if the engine returns it."""


class Engine(Protocol):
    """A search engine."""

    name: str

    def add(self, pictures: Iterable[tuple[str, bytes]]) -> None:
        """Store pictures by name."""

    def query(self, content: bytes) -> Sequence[Candidate]:
        """Return the best candidates without any threshold, best first."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a query."""

    query: Query
    candidates: Sequence[Candidate]

    @property
    def first(self) -> Candidate | None:
        return self.candidates[0] if self.candidates else None

    @property
    def is_right_first(self) -> bool:
        return self.first is not None and self.first.name == self.query.original

    @property
    def similarity(self) -> float:
        """The highest similarity of all candidates."""
        return max((candidate.similarity for candidate in self.candidates), default=-math.inf)

    @property
    def right_similarity(self) -> float:
        """The similarity of the right candidate, whatever its rank."""
        return max(
            (
                candidate.similarity
                for candidate in self.candidates
                if candidate.name == self.query.original
            ),
            default=-math.inf,
        )

    @property
    def is_answered(self) -> bool:
        """Whether any candidate passes the default threshold."""
        return any(candidate.is_answer for candidate in self.candidates)

    @property
    def is_right_answered(self) -> bool:
        return any(
            candidate.is_answer and candidate.name == self.query.original
            for candidate in self.candidates
        )

    @property
    def iou(self) -> float | None:
        """Intersection over union of the returned box and the true box.

        None if the right candidate is not first, or was matched by the whole picture.
        """
        if not self.is_right_first or self.query.box is None or self.first is None:
            return None
        return None if self.first.box is None else iou(self.first.box, self.query.box)


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of a kind of query, shares in [0, 1]."""

    kind: str
    count: int
    right_first: float
    found_at_strangers: float
    """Share of queries whose right candidate exceeds the threshold set by the strangers."""
    found_at_default: float
    """Share of queries whose right candidate passes the default threshold."""
    mean_iou: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of an engine."""

    engine: str
    threshold: float
    """Similarity that 1 in 100 strangers exceed."""
    rows: Sequence[Row]
    wrong: Mapping[str, tuple[int, float, float]]
    """Count, share above the default threshold and above `threshold`, by kind of stranger."""


def iou(first: PixelBox, second: PixelBox) -> float:
    """Return the intersection over union of two boxes."""
    width = min(first.x_max, second.x_max) - max(first.x_min, second.x_min)
    height = min(first.y_max, second.y_max) - max(first.y_min, second.y_min)
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    areas = sum((box.x_max - box.x_min) * (box.y_max - box.y_min) for box in (first, second))
    return common / (areas - common)


def score(engine: str, outcomes: Sequence[Outcome]) -> Report:
    """Compute the figures of an engine."""
    threshold = strangers_threshold(
        [outcome.similarity for outcome in outcomes if outcome.query.kind == STRANGER]
    )
    groups: list[tuple[str, Callable[[str], bool]]] = [
        *((kind, kind.__eq__) for kind in (*EDITS, *PLACEMENTS)),
        ("**edits of the whole picture**", EDITS.__contains__),
        ("**pasted into another picture**", "pasted".__eq__),
        ("**in a screenshot**", SCREENSHOTS.__contains__),
    ]
    rows = [
        _row(label, [outcome for outcome in outcomes if belongs(outcome.query.kind)], threshold)
        for label, belongs in groups
    ]
    kinds = dict.fromkeys(outcome.query.kind for outcome in outcomes if outcome.query.is_stranger)
    return Report(
        engine,
        threshold,
        rows,
        {
            kind: _wrong([outcome for outcome in outcomes if outcome.query.kind == kind], threshold)
            for kind in kinds
        },
    )


def strangers_threshold(similarities: Sequence[float]) -> float:
    """Return the lowest similarity that at most 1 in 100 strangers exceed."""
    ranked = sorted(similarities, reverse=True)
    return ranked[math.floor(ALLOWED_STRANGERS * len(ranked))] if ranked else -math.inf


def to_markdown(reports: Sequence[Report]) -> Iterator[str]:
    """Yield the lines of a Markdown report with all engines side by side."""
    main = reports[0]
    others = "".join(f" {report.engine} first | {report.engine} found |" for report in reports[1:])
    yield (
        "| query | n | right first | found at 1 in 100 strangers | found at default | box IoU |"
        + others
    )
    yield "|---|---:|---:|---:|---:|---:|" + "---:|---:|" * (len(reports) - 1)
    for number, row in enumerate(main.rows):
        cells = [row.kind, str(row.count), _percent(row.right_first)]
        cells += [_percent(row.found_at_strangers), _percent(row.found_at_default)]
        cells.append("" if row.mean_iou is None else f"{row.mean_iou:.2f}")
        for other in reports[1:]:
            cells.append(_percent(other.rows[number].right_first))
            cells.append(_percent(other.rows[number].found_at_strangers))
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield "| strangers | n | wrongly answered at default | over the threshold |"
    yield "|---|---:|---:|---:|"
    for kind, (count, at_default, over) in main.wrong.items():
        yield f"| {kind} | {count} | {_percent(at_default)} | {_percent(over)} |"
    yield ""
    yield "Thresholds that 1 in 100 strangers exceed: " + ", ".join(
        f"{report.engine} {report.threshold:.3f}" for report in reports
    )
    if SERIES_STRANGER in main.wrong:
        yield ""
        yield (
            "Box IoU is measured where a region matched, not the whole picture. The threshold of "
            "the suite is -log10 of the false-positive rate of a search. "
            f"`{SERIES_STRANGER}`: other things photographed in the same way at the same place as "
            "stored things. They do not contribute to the threshold."
        )


def _row(kind: str, outcomes: Sequence[Outcome], threshold: float) -> Row:
    ious = [outcome.iou for outcome in outcomes if outcome.iou is not None]
    return Row(
        kind,
        len(outcomes),
        _share(outcome.is_right_first for outcome in outcomes),
        _share(outcome.right_similarity > threshold for outcome in outcomes),
        _share(outcome.is_right_answered for outcome in outcomes),
        sum(ious) / len(ious) if ious else None,
    )


def _wrong(outcomes: Sequence[Outcome], threshold: float) -> tuple[int, float, float]:
    return (
        len(outcomes),
        _share(outcome.is_answered for outcome in outcomes),
        _share(outcome.similarity > threshold for outcome in outcomes),
    )


def _share(hits: Iterable[bool]) -> float:
    values = list(hits)
    return sum(values) / len(values) if values else math.nan


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"
