"""Score answers, whoever gave them.

Every answerer gives its candidates with a similarity of its own kind. Its threshold is the one
that lets 1 in 100 strangers through, taken from those strangers themselves; so no answerer is
judged by another's scale. Where an answerer has a default threshold, that is scored beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from imagesearch_services.models.copies.edits import EDITS
from imagesearch_services.models.copies.placements import PLACEMENTS, PixelBox
from imagesearch_services.models.copies.queries import SERIES_STRANGER, STRANGER, Query

STRANGERS_LET_THROUGH = 0.01
SCREENSHOTS = tuple(kind for kind in PLACEMENTS if kind.startswith("screenshot"))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored picture that an answerer gives."""

    name: str
    similarity: float
    """Higher is closer; the scale is the answerer's."""
    is_answer: bool = True
    """Whether the answerer's default threshold lets it through."""
    box: PixelBox | None = None
    """Which part of the query matched, where the answerer says."""


class Answerer(Protocol):
    """Something that finds pictures again."""

    name: str

    def add(self, pictures: Iterable[tuple[str, bytes]]) -> None:
        """Store pictures by name."""

    def query(self, content: bytes) -> Sequence[Candidate]:
        """Give the best candidates, best first, however bad."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one query."""

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
        """The highest of any candidate."""
        return max((one.similarity for one in self.candidates), default=-math.inf)

    @property
    def right_similarity(self) -> float:
        """Of the right candidate, wherever it ranks."""
        return max(
            (one.similarity for one in self.candidates if one.name == self.query.original),
            default=-math.inf,
        )

    @property
    def is_answered(self) -> bool:
        """Whether anything passes the default threshold."""
        return any(one.is_answer for one in self.candidates)

    @property
    def is_right_answered(self) -> bool:
        return any(one.is_answer and one.name == self.query.original for one in self.candidates)

    @property
    def iou(self) -> float | None:
        """Of the box that is said and the true one.

        None where the right one is not first, or was found by the whole picture.
        """
        if not self.is_right_first or self.query.box is None or self.first is None:
            return None
        return None if self.first.box is None else iou(self.first.box, self.query.box)


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one kind of query, shares in [0, 1]."""

    kind: str
    count: int
    right_first: float
    found_at_strangers: float
    """Right one over the threshold that 1 in 100 strangers pass."""
    found_at_default: float
    """Right one among what the answerer gives by itself."""
    mean_iou: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """One answerer's figures."""

    answerer: str
    threshold: float
    """Similarity that 1 in 100 plain strangers reach."""
    rows: Sequence[Row]
    wrong: Mapping[str, tuple[int, float, float]]
    """Kind of strangers → count, share answered at the default, share over the threshold."""


def iou(one: PixelBox, other: PixelBox) -> float:
    """Intersection over union."""
    width = min(one.x_max, other.x_max) - max(one.x_min, other.x_min)
    height = min(one.y_max, other.y_max) - max(one.y_min, other.y_min)
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    areas = sum((box.x_max - box.x_min) * (box.y_max - box.y_min) for box in (one, other))
    return common / (areas - common)


def score(answerer: str, outcomes: Sequence[Outcome]) -> Report:
    """Work out one answerer's figures."""
    threshold = strangers_threshold(
        [each.similarity for each in outcomes if each.query.kind == STRANGER]
    )
    groups: list[tuple[str, Callable[[str], bool]]] = [
        *((kind, kind.__eq__) for kind in (*EDITS, *PLACEMENTS)),
        ("**edits of the whole picture**", EDITS.__contains__),
        ("**pasted into another picture**", "pasted".__eq__),
        ("**in a screenshot**", SCREENSHOTS.__contains__),
    ]
    rows = [
        _row(label, [each for each in outcomes if belongs(each.query.kind)], threshold)
        for label, belongs in groups
    ]
    kinds = dict.fromkeys(each.query.kind for each in outcomes if each.query.is_stranger)
    return Report(
        answerer,
        threshold,
        rows,
        {
            kind: _wrong([each for each in outcomes if each.query.kind == kind], threshold)
            for kind in kinds
        },
    )


def strangers_threshold(similarities: Sequence[float]) -> float:
    """Give the lowest similarity that at most 1 in 100 strangers pass (a pass is above it)."""
    ranked = sorted(similarities, reverse=True)
    return ranked[math.floor(STRANGERS_LET_THROUGH * len(ranked))] if ranked else -math.inf


def to_markdown(reports: Sequence[Report]) -> Iterator[str]:
    """Write the figures as tables, all answerers beside one another."""
    main = reports[0]
    others = "".join(f" {each.answerer} first | {each.answerer} found |" for each in reports[1:])
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
    yield "Thresholds that 1 in 100 strangers pass: " + ", ".join(
        f"{each.answerer} {each.threshold:.3f}" for each in reports
    )
    if SERIES_STRANGER in main.wrong:
        yield ""
        yield (
            "Box IoU is taken where a region matched and not the whole. The suite's threshold is "
            "-log10 of the false-positive rate of a search. "
            f"`{SERIES_STRANGER}`: other things photographed in the same way at the same place as "
            "stored ones. They set no threshold."
        )


def _row(kind: str, outcomes: Sequence[Outcome], threshold: float) -> Row:
    ious = [each.iou for each in outcomes if each.iou is not None]
    return Row(
        kind,
        len(outcomes),
        _share(each.is_right_first for each in outcomes),
        _share(each.right_similarity > threshold for each in outcomes),
        _share(each.is_right_answered for each in outcomes),
        sum(ious) / len(ious) if ious else None,
    )


def _wrong(outcomes: Sequence[Outcome], threshold: float) -> tuple[int, float, float]:
    return (
        len(outcomes),
        _share(each.is_answered for each in outcomes),
        _share(each.similarity > threshold for each in outcomes),
    )


def _share(hits: Iterable[bool]) -> float:
    values = list(hits)
    return sum(values) / len(values) if values else math.nan


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.1f} %"
