"""The pages of searches and of subject detection."""

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
"""Maximum distance, in pixels, of a box from the edges of the picture it covers as a whole. The
outline of such a box is not drawn."""


@dataclass(frozen=True)
class Query:
    """A query picture and the result of its search."""

    name: str
    """Name of the file or of the stored image."""
    content: bytes
    """Content of the file; empty if it is not available."""
    outcome: SearchImagesResponse | str
    """The response, or an error message."""


@dataclass(frozen=True, kw_only=True)
class ImageMetadata:
    """Metadata of a stored image, as text."""

    image_id: str
    entity_id: str
    category: str
    tags: Sequence[tuple[str, str]]
    size: str

    @classmethod
    def of(cls, image: Image) -> ImageMetadata:
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
    """Data of a match for the template."""

    anchor: str
    rank: int
    score: float
    false_positive_rate: float
    relation: str
    is_outlined: bool
    metadata: ImageMetadata
    figure: Figure


@dataclass(frozen=True, kw_only=True)
class SubjectView:
    """Data of a subject of the query for the template."""

    anchor: str
    badge: str
    category: str
    score: float
    colors: Sequence[tuple[str, str, float]]
    """Name, hexadecimal code "#rrggbb" and share of each color."""
    attributes: Sequence[tuple[str, str]]
    is_chosen: bool


@dataclass(frozen=True, kw_only=True)
class StepView:
    """Duration of a step for the template."""

    name: str
    duration_ms: float
    share: float
    """Share of the total duration, 0 to 1."""
    is_part: bool
    """Whether the step is a part of another step."""


@dataclass(frozen=True, kw_only=True)
class QueryView:
    """Data of a query for the template."""

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


def search_page(
    library_id: str, queries: Iterable[Query], *, restrictions: Sequence[str] = ()
) -> str:
    """Return the page of searches.

    Args:
        library_id: id of the searched library.
        queries: queries in their order on the page.
        restrictions: restrictions of the searches, such as "filter tags.year >= 2020".
    """
    views = [_query_view(number, query) for number, query in enumerate(queries, 1)]
    return render("search.html", library_id=library_id, queries=views, restrictions=restrictions)


def detection_page(name: str, content: bytes, answer: DetectSubjectsResponse) -> str:
    """Return the page of the subjects of a picture.

    Args:
        name: file name.
        content: picture file.
        answer: the response.
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
    """Return whether a box covers the whole picture."""
    return (
        max(box.x_min, box.y_min) <= WHOLE_TOLERANCE_PX
        and width - box.x_max <= WHOLE_TOLERANCE_PX
        and height - box.y_max <= WHOLE_TOLERANCE_PX
    )


def subject_views(
    subjects: Iterable[Subject], anchor: str, chosen: int | None
) -> list[SubjectView]:
    """Return views of subjects. Their badges are letters, since matches have numbers."""
    return [
        SubjectView(
            anchor=f"{anchor}-s{row + 1}",
            badge=_letter(row),
            category=category_words(subject.category) or "subject",
            score=subject.score,
            colors=[(color.name, color.hex, color.share) for color in subject.colors],
            attributes=[
                (attribute.name.replace("_", " "), attribute.value)
                for attribute in subject.attributes
            ],
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
    """Return the total duration, in milliseconds, and a view of each step."""
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
        thresholds=[_threshold_words(threshold) for threshold in answer.thresholds],
    )


def _headline(answer: SearchImagesResponse) -> str:
    if not answer.total_found:
        return "No matches"
    matches = count_words(
        answer.total_found, "match", "matches", at_least=answer.total_is_lower_bound
    )
    shown = len(answer.matches)
    rest = f", the first {shown:,} shown" if shown < answer.total_found else ""
    return f"{matches[0].upper()}{matches[1:]}{rest}"


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
            Outline(points=box_points(region), title="the searched part", kind="region")
        )
    outlines += subject_outlines(answer.subjects, subjects)
    for match, view in zip(answer.matches, matches, strict=True):
        outlines += match_outlines(match, view.rank, view.anchor)
    title = f"Query picture {query.name}"
    if outlines:
        title += ": " + "; ".join(outline.title for outline in outlines)
    if not info.width:  # the suite rejected the picture, so its size is unknown
        return None
    return figure(query.content, info.width, info.height, alt=title, outlines=outlines)


def match_outlines(match: Match, rank: int, anchor: str) -> list[Outline]:
    """Return outlines of the parts of the query in which a match appears."""
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
            Outline(points=box_points(match.box), title="the matched part", kind="region")
        )
    anchor = f"{query_anchor}-m{rank}"
    return MatchView(
        anchor=anchor,
        rank=rank,
        score=match.score,
        false_positive_rate=match.false_positive_rate,
        relation=_relation_words(match.relation),
        is_outlined=bool(match_outlines(match, rank, anchor)),
        metadata=ImageMetadata.of(match.image),
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
        Relation.RELATION_SIMILAR: "similar picture",
    }.get(relation, "")


def _threshold_words(threshold: AppliedThreshold) -> str:
    relation = _relation_words(threshold.relation)
    text = f"minimum score {threshold.min_score:.3f}"
    if relation:
        text = f"{relation}: {text}"
    if threshold.false_positive_rate:
        rate = threshold.false_positive_rate
        text += f", false-positive rate {rate:.3g} per search"
    return text + (" (extrapolated)" if threshold.extrapolated else "")


def _letter(row: int) -> str:
    """Return the letters of a row number, like column names of a spreadsheet.

    >>> [_letter(row) for row in (0, 25, 26)]
    ['A', 'Z', 'AA']
    """
    letters = ""
    row += 1
    while row:
        row, rest = divmod(row - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
