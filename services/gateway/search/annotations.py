"""Answers drawn: the query with its boxes, and the first matches beside it.

A drawing comes on top of an answer and never costs it: what can't be drawn is a warning.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from imagesearch_services.common.errors import ServiceError, field_error
from imagesearch_services.common.types import Box, PictureInfo, Quadrilateral, StepTiming, Subject
from imagesearch_services.gateway.model import (
    Captioned,
    DetectionAnswer,
    DrawingOptions,
    DrawingOrder,
    Match,
    Outline,
    PictureQuery,
    SearchAnswer,
    StoredQuery,
)
from imagesearch_services.gateway.search.request import SearchRequest
from imagesearch_services.gateway.search.thumbnails import Shelf, small_pictures

MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")
SIDES_PX = range(64, 4096 + 1)
MOST_MATCHES = 20

NOT_DRAWN = "annotated_image: not drawn"

MOST_OUTLINES = 100
MOST_LINES = 6
"""Of words on one outline."""

WHOLE_TOLERANCE_PX = 1.0
"""A box this near to the picture's edges is the whole picture, and not drawn."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A drawing, or why there is none."""

    content: bytes = b""
    warnings: Sequence[str] = ()


class Painter(Protocol):
    """The Embedding service, as far as it draws."""

    async def draw(self, order: DrawingOrder) -> bytes:
        """Give the file."""


def check_options(options: DrawingOptions, *, field: str = "annotation") -> DrawingOptions:
    """Return the options if they can be met."""
    if options.media_type and options.media_type not in MEDIA_TYPES:
        raise field_error(f"{field}.media_type", f"must be one of {', '.join(MEDIA_TYPES)}")
    if options.max_side_px and options.max_side_px not in SIDES_PX:
        raise field_error(
            f"{field}.max_side_px", f"must be {SIDES_PX[0]} to {SIDES_PX[-1]:,}, or 0 for 1,280"
        )
    if not 0 <= options.match_count <= MOST_MATCHES:
        raise field_error(f"{field}.match_count", f"must be 0 to {MOST_MATCHES}")
    return options


@dataclass(frozen=True, slots=True)
class Drawings:
    """Draws answers."""

    painter: Painter
    shelf: Shelf

    async def add_to_search(self, answer: SearchAnswer, request: SearchRequest) -> SearchAnswer:
        """Add the drawing that was asked for, or a warning why there is none.

        A stored query is drawn by its small picture; one that a page token stands for, not at all.
        """
        if request.drawing is None:
            return answer
        started_s = time.perf_counter()
        drawn = await self._of_search(answer, request, request.drawing)
        return replace(
            answer,
            annotated_image=drawn.content,
            warnings=[*answer.warnings, *drawn.warnings],
            timings=_with_drawing(answer.timings, started_s),
        )

    async def add_to_detection(
        self, answer: DetectionAnswer, picture: PictureQuery, options: DrawingOptions | None
    ) -> DetectionAnswer:
        """Add the drawing that was asked for; the main subject stands out.

        Raises:
            ServiceError: it can't be drawn, and there is no place for a warning.
        """
        if options is None:
            return answer
        started_s = time.perf_counter()
        outlines = subject_outlines(answer.subjects, 0)
        content = await self.painter.draw(DrawingOrder(picture.content, outlines, (), options))
        if len(content) > options.max_bytes:
            raise field_error("annotation", _too_large(content, options))
        return replace(
            answer, annotated_image=content, timings=_with_drawing(answer.timings, started_s)
        )

    async def _of_search(
        self, answer: SearchAnswer, request: SearchRequest, options: DrawingOptions
    ) -> _Drawn:
        query = request.query
        if query is None:
            return _Drawn(warnings=[f"{NOT_DRAWN}: give the picture again beside the page token"])
        matches = answer.matches[: options.match_count]
        small, warnings = await self._small(answer, request, matches)
        if isinstance(query, PictureQuery):
            content, outlines = query.content, search_outlines(answer)
        else:
            content, outlines = small.pop(query.image_id, b""), []
        if not content:
            why = "a stored image's pixels are not kept, and it has no small picture"
            return _Drawn(warnings=[*warnings, f"{NOT_DRAWN}: {why}"])
        beside = [
            Captioned(small.get(match.image.image_id, b""), match_lines(rank, match))
            for rank, match in enumerate(matches, answer.first_rank)
        ]
        try:
            drawing = await self.painter.draw(DrawingOrder(content, outlines, beside, options))
        except ServiceError as error:
            structlog.get_logger().warning("drawing.failed", reason=error.reason)
            return _Drawn(warnings=[*warnings, f"{NOT_DRAWN}: {error.message}"])
        if len(drawing) > options.max_bytes:
            why = f"annotated_image: left out: {_too_large(drawing, options)}"
            return _Drawn(warnings=[*warnings, why])
        return _Drawn(drawing, warnings)

    async def _small(
        self, answer: SearchAnswer, request: SearchRequest, matches: Sequence[Match]
    ) -> tuple[dict[str, bytes], list[str]]:
        """Get the small pictures that are drawn; without them frames stay empty."""
        wanted = [match.image.image_id for match in matches]
        if isinstance(request.query, StoredQuery):
            wanted.append(request.query.image_id)
        small, error = await small_pictures(
            self.shelf, request.library_id, wanted, answer.thumbnails
        )
        if error is None:
            return small, []
        structlog.get_logger().warning("drawing.no_thumbnails", reason=error.reason)
        return small, [f"annotated_image: drawn without small pictures: {error.message}"]


def search_outlines(answer: SearchAnswer) -> list[Outline]:
    """Outline what was searched, the query's subjects and where matches appear in it.

    Matches in the same place share an outline. The subject that was searched with stands out, or
    else the place of the first match.
    """
    outlines = subject_outlines(answer.subjects, answer.chosen_subject)
    region, info = answer.searched_region, answer.query_info
    if not outlines and region and info and not is_whole(region, info):
        outlines.append(Outline(region))
    places: dict[Box | Quadrilateral, list[str]] = {}
    for rank, match in enumerate(answer.matches[:MOST_MATCHES], answer.first_rank):
        for place in match.instances or filter(None, [match.query_box]):
            places.setdefault(place, []).append(" · ".join(match_lines(rank, match)))
    outlines += (
        Outline(place, lines[:MOST_LINES], row == 0 and not answer.subjects)
        for row, (place, lines) in enumerate(places.items())
    )
    return outlines[:MOST_OUTLINES]


def subject_outlines(subjects: Sequence[Subject], chosen: int | None) -> list[Outline]:
    return [
        Outline(subject.box, subject_lines(subject), row == chosen)
        for row, subject in enumerate(subjects)
    ]


def subject_lines(subject: Subject) -> list[str]:
    """Say what a subject is: its category and score, its colours."""
    words = subject.category.name.replace("_", " ").capitalize() if subject.category else "Subject"
    lines = [f"{words} {subject.score:.2f}"]
    if subject.colors:
        lines.append(", ".join(f"{color.name} {color.share:.0%}" for color in subject.colors))
    return lines


def match_lines(rank: int, match: Match) -> list[str]:
    """Say which match it is, how good, and of what."""
    return [f"{rank} · {match.score:.2f}", match.image.image_id]


def is_whole(box: Box, info: PictureInfo) -> bool:
    """Whether a box takes in the whole picture."""
    return (
        max(box.x_min, box.y_min) <= WHOLE_TOLERANCE_PX
        and info.width - box.x_max <= WHOLE_TOLERANCE_PX
        and info.height - box.y_max <= WHOLE_TOLERANCE_PX
    )


def _too_large(drawing: bytes, options: DrawingOptions) -> str:
    return f"{len(drawing):,} bytes, where {options.max_bytes:,} are left: ask for a JPEG"


def _with_drawing(timings: Sequence[StepTiming], started_s: float) -> list[StepTiming]:
    """Add the time of drawing as a step, and to the total."""
    took_ms = (time.perf_counter() - started_s) * 1e3
    steps = [one for one in timings if one.step != "total"]
    total_ms = sum(one.duration_ms for one in timings if one.step == "total")
    return [*steps, StepTiming("draw", took_ms), StepTiming("total", total_ms + took_ms)]
