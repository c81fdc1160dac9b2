"""The page of a search: every query with its boxes, its matches and what their scores mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from imagesearch.client import (
    Category,
    DetectSubjectsResponse,
    Image,
    Match,
    Relation,
    SearchImagesResponse,
    Subject,
    plain_tags,
)
from imagesearch.gateway.v1.search_pb2 import AppliedThreshold
from imagesearch.report.figures import (
    Figure,
    Outline,
    box_points,
    corner_points,
    figure,
    thumbnail,
)
from imagesearch.report.rendering import render
from imagesearch.report.words import count_words, enum_words
from imagesearch.type.v1.geometry_pb2 import Box
from imagesearch.type.v1.model_pb2 import StepTiming

WHOLE_TOLERANCE_PX = 1.0
"""A box this near to the picture's edges is the whole picture, and not drawn."""


@dataclass(frozen=True)
class Query:
    """A picture that was searched with, and what came of it."""

    name: str
    """The file, or the stored image."""
    content: bytes
    """Its bytes; empty where they are not at hand."""
    outcome: SearchImagesResponse | str
    """The answer, or in words why there is none."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """What is said of a stored image."""

    image_id: str
    entity_id: str
    category: str
    tags: Sequence[tuple[str, str]]
    size: str

    @classmethod
    def of(cls, image: Image) -> Words:
        return cls(
            image_id=image.image_id,
            entity_id=image.entity_id,
            category=category_words(image.category),
            tags=[
                (name, tag_words(value)) for name, value in sorted(plain_tags(image.tags).items())
            ],
            size=f"{image.info.width} × {image.info.height}" if image.info.width else "",
        )


@dataclass(frozen=True, kw_only=True)
class MatchView:
    """A match as the page shows it."""

    anchor: str
    rank: int
    score: float
    false_positive_rate: float
    relation: str
    is_outlined: bool
    words: Words
    figure: Figure


@dataclass(frozen=True, kw_only=True)
class SubjectView:
    """A subject of the query as the page shows it."""

    anchor: str
    badge: str
    category: str
    score: float
    colors: Sequence[tuple[str, str, float]]
    """Name, "#rrggbb", share."""
    attributes: Sequence[tuple[str, str]]
    is_chosen: bool


@dataclass(frozen=True, kw_only=True)
class StepView:
    """How long a step took."""

    name: str
    duration_ms: float
    share: float
    """Of the whole, 0 to 1."""
    is_part: bool


@dataclass(frozen=True, kw_only=True)
class QueryView:
    """A query as the page shows it."""

    anchor: str
    name: str
    error: str
    headline: str
    figure: Figure | None
    subjects: Sequence[SubjectView]
    matches: Sequence[MatchView]
    warnings: Sequence[str]
    answer: SearchImagesResponse
    total_ms: float
    steps: Sequence[StepView]
    thresholds: Sequence[str]


def search_page(library_id: str, queries: Iterable[Query], *, asked: Sequence[str] = ()) -> str:
    """Make the page of one search or many.

    Args:
        library_id: that was searched.
        queries: in the order in which they are shown.
        asked: what the searches were limited to, as words: "filter tags.year >= 2020".
    """
    views = [_query_view(number, query) for number, query in enumerate(queries, 1)]
    return render("search.html", library_id=library_id, queries=views, asked=asked)


def detection_page(name: str, content: bytes, answer: DetectSubjectsResponse) -> str:
    """Make the page of a picture's subjects.

    Args:
        name: of the file.
        content: its bytes.
        answer: what it shows.
    """
    subjects = subject_views(answer.subjects, "d", None)
    total_ms, steps = step_views(answer.timings)
    return render(
        "detection.html",
        name=name,
        headline=count_words(len(subjects), "subject").capitalize(),
        figure=figure(
            content,
            answer.info.width,
            answer.info.height,
            alt=f"The picture {name}",
            outlines=subject_outlines(answer.subjects, subjects),
        ),
        subjects=subjects,
        total_ms=total_ms,
        steps=steps,
    )


def category_words(category: Category.ValueType) -> str:
    name = Category.Name(category) if category in Category.values() else "UNSPECIFIED"
    return enum_words(name, prefix="CATEGORY_")


def tag_words(value: bool | float | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_whole(box: Box, width: float, height: float) -> bool:
    """Whether a box takes in the whole picture."""
    return (
        max(box.x_min, box.y_min) <= WHOLE_TOLERANCE_PX
        and width - box.x_max <= WHOLE_TOLERANCE_PX
        and height - box.y_max <= WHOLE_TOLERANCE_PX
    )


def subject_views(
    subjects: Iterable[Subject], anchor: str, chosen: int | None
) -> list[SubjectView]:
    """Show subjects, lettered A, B, C… so that nobody takes them for the numbered matches."""
    return [
        SubjectView(
            anchor=f"{anchor}-s{row + 1}",
            badge=_letter(row),
            category=category_words(subject.category) or "subject",
            score=subject.score,
            colors=[(color.name, color.hex, color.share) for color in subject.colors],
            attributes=[(one.name.replace("_", " "), one.value) for one in subject.attributes],
            is_chosen=row == chosen,
        )
        for row, subject in enumerate(subjects)
    ]


def subject_outlines(subjects: Iterable[Subject], views: Iterable[SubjectView]) -> list[Outline]:
    return [
        Outline(
            points=box_points(subject.box),
            title=f"{view.category}, score {view.score:.2f}",
            kind="subject",
            badge=view.badge,
            link=view.anchor,
        )
        for subject, view in zip(subjects, views, strict=True)
    ]


def step_views(timings: Iterable[StepTiming]) -> tuple[float, list[StepView]]:
    """Give the whole time and that of each step."""
    times = {timing.step: timing.duration_ms for timing in timings}
    total_ms = times.pop("total", 0.0) or sum(
        time_ms for step, time_ms in times.items() if ":" not in step
    )
    return total_ms, [
        StepView(
            name=step.rpartition(":")[2].replace("_", " "),
            duration_ms=time_ms,
            share=min(1.0, time_ms / total_ms) if total_ms else 0.0,
            is_part=":" in step,
        )
        for step, time_ms in times.items()
    ]


def _query_view(number: int, query: Query) -> QueryView:
    anchor = f"q{number}"
    if isinstance(query.outcome, str):
        answer, error = SearchImagesResponse(), query.outcome
    else:
        answer, error = query.outcome, ""
    matches = [_match_view(anchor, rank, match) for rank, match in enumerate(answer.matches, 1)]
    chosen = answer.chosen_subject if answer.HasField("chosen_subject") else None
    subjects = subject_views(answer.subjects, anchor, chosen)
    total_ms, steps = step_views(answer.timings)
    return QueryView(
        anchor=anchor,
        name=query.name,
        error=error,
        headline=_headline(answer),
        figure=_query_figure(query, answer, matches, subjects),
        subjects=subjects,
        matches=matches,
        warnings=list(answer.warnings),
        answer=answer,
        total_ms=total_ms,
        steps=steps,
        thresholds=[_threshold_words(one) for one in answer.thresholds],
    )


def _headline(answer: SearchImagesResponse) -> str:
    if not answer.total_found:
        return "Nothing found"
    found = count_words(
        answer.total_found, "match", "matches", at_least=answer.total_is_lower_bound
    )
    shown = len(answer.matches)
    rest = f", the first {shown:,} shown" if shown < answer.total_found else ""
    return f"{found[0].upper()}{found[1:]}{rest}"


def _query_figure(
    query: Query,
    answer: SearchImagesResponse,
    matches: Sequence[MatchView],
    subjects: Sequence[SubjectView],
) -> Figure | None:
    if not query.content:
        return None
    info = answer.query_info
    outlines = []
    region = answer.searched_region
    if answer.HasField("searched_region") and not is_whole(region, info.width, info.height):
        outlines.append(
            Outline(points=box_points(region), title="the part that was searched", kind="region")
        )
    outlines += subject_outlines(answer.subjects, subjects)
    for match, view in zip(answer.matches, matches, strict=True):
        outlines += match_outlines(match, view.rank, view.anchor)
    title = f"The picture that was searched with, {query.name}"
    if outlines:
        title += ": " + "; ".join(outline.title for outline in outlines)
    if not info.width:  # the suite refused it: nobody knows its size
        return None
    return figure(query.content, info.width, info.height, alt=title, outlines=outlines)


def match_outlines(match: Match, rank: int, anchor: str) -> list[Outline]:
    """Outline where in the query a match appears, if the answer says so."""
    shapes = [corner_points(instance) for instance in match.instances]
    if not shapes and match.HasField("query_corners"):
        shapes = [corner_points(match.query_corners)]
    if not shapes and match.HasField("query_box"):
        shapes = [box_points(match.query_box)]
    return [
        Outline(
            points=points,
            title=f"match {rank}, {match.image.image_id}",
            badge=str(rank),
            link=anchor,
        )
        for points in shapes
        if points
    ]


def _match_view(query_anchor: str, rank: int, match: Match) -> MatchView:
    info = match.image.info
    outlines = []
    if match.HasField("box") and not is_whole(match.box, info.width, info.height):
        outlines.append(
            Outline(points=box_points(match.box), title="the part that matched", kind="region")
        )
    anchor = f"{query_anchor}-m{rank}"
    return MatchView(
        anchor=anchor,
        rank=rank,
        score=match.score,
        false_positive_rate=match.false_positive_rate,
        relation=_relation_words(match.relation),
        is_outlined=bool(match_outlines(match, rank, anchor)),
        words=Words.of(match.image),
        figure=thumbnail(
            match.thumbnail,
            info.width,
            info.height,
            alt=f"Match {rank}, {match.image.image_id}",
            outlines=outlines,
        ),
    )


def _relation_words(relation: Relation.ValueType) -> str:
    return {
        Relation.RELATION_SAME: "same picture",
        Relation.RELATION_SIMILAR: "looks like it",
    }.get(relation, "")


def _threshold_words(threshold: AppliedThreshold) -> str:
    relation = _relation_words(threshold.relation)
    words = f"scores from {threshold.min_score:.3f}"
    if relation:
        words = f"{relation}: {words}"
    if threshold.false_positive_rate:
        rate = threshold.false_positive_rate
        words += f", where chance gives a match in {rate:.3g} of searches"
    return words + (" (extrapolated)" if threshold.extrapolated else "")


def _letter(row: int) -> str:
    """Count in letters.

    >>> [_letter(row) for row in (0, 25, 26)]
    ['A', 'Z', 'AA']
    """
    letters = ""
    row += 1
    while row:
        row, rest = divmod(row - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
