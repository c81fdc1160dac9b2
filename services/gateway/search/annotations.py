"""Annotated images: the query with its outlines, and the first matches next to it.

A search does not fail if its drawing fails: the answer has a warning instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from imagesearch_services.common.errors import ServiceError, field_error
from imagesearch_services.common.logs import logger
from imagesearch_services.common.stopwatch import Stopwatch
from imagesearch_services.common.types import Box, PictureInfo, Quadrilateral, Subject
from imagesearch_services.gateway.model import (
    CaptionedThumbnail,
    DetectionAnswer,
    DrawingOptions,
    DrawingOrder,
    Outline,
)
from imagesearch_services.gateway.search.answer import Match, SearchAnswer
from imagesearch_services.gateway.search.request import (
    PictureQuery,
    SearchRequest,
    StoredQuery,
)
from imagesearch_services.gateway.search.thumbnails import ThumbnailStore, load_thumbnails

MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")
"""Media types of drawings."""
SIDES_PX = range(64, 4096 + 1)
"""Valid long sides of a drawing, in pixels."""
MAX_MATCHES = 20
"""Maximum matches drawn next to the query, and labeled on it."""

NOT_DRAWN = "annotated_image: not drawn"
"""Start of the warning for a missing drawing."""

MAX_OUTLINES = 100
"""Maximum outlines on one picture."""
MAX_OUTLINE_LINES = 6
"""Maximum lines of text at one outline."""

WHOLE_TOLERANCE_PX = 1.0
"""Maximum distance of a box from the edges of the picture, in pixels, to count as the whole
picture, which is not outlined."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A drawing, or warnings that explain why it is missing."""

    content: bytes = b""
    warnings: Sequence[str] = ()


class Renderer(Protocol):
    """The part of the Embedding service that draws."""

    async def draw(self, order: DrawingOrder) -> bytes:
        """Return the drawing as a file."""


def check_options(options: DrawingOptions, *, field: str = "annotation") -> DrawingOptions:
    """Return the options, or raise FIELD_INVALID if one is out of its range."""
    if options.media_type and options.media_type not in MEDIA_TYPES:
        raise field_error(f"{field}.media_type", f"must be one of {', '.join(MEDIA_TYPES)}")
    if options.max_side_px and options.max_side_px not in SIDES_PX:
        raise field_error(
            f"{field}.max_side_px", f"must be {SIDES_PX[0]} to {SIDES_PX[-1]:,}, or 0 for 1,280"
        )
    if not 0 <= options.match_count <= MAX_MATCHES:
        raise field_error(f"{field}.match_count", f"must be 0 to {MAX_MATCHES}")
    return options


@dataclass(frozen=True, slots=True)
class Drawings:
    """Adds drawings to answers."""

    renderer: Renderer
    thumbnails: ThumbnailStore

    async def add_to_search(self, answer: SearchAnswer, request: SearchRequest) -> SearchAnswer:
        """Return the answer with the requested drawing, or with a warning if there is no drawing.

        A stored query is drawn as its thumbnail. A later page is drawn only if the request has the
        query too.
        """
        if request.drawing is None:
            return answer
        stopwatch = Stopwatch(answer.timings)
        with stopwatch.step("draw"):
            drawn = await self._draw_search(answer, request, request.drawing)
        return replace(
            answer,
            annotated_image=drawn.content,
            warnings=[*answer.warnings, *drawn.warnings],
            timings=stopwatch.timings(),
        )

    async def add_to_detection(
        self, answer: DetectionAnswer, picture: PictureQuery, options: DrawingOptions | None
    ) -> DetectionAnswer:
        """Return the answer with the requested drawing; the main subject is highlighted.

        Raises:
            ServiceError: the drawing failed, since a detection answer has no warnings.
        """
        if options is None:
            return answer
        stopwatch = Stopwatch(answer.timings)
        with stopwatch.step("draw"):
            outlines = subject_outlines(answer.subjects, 0)
            order = DrawingOrder(picture.content, outlines, (), options)
            content = await self.renderer.draw(order)
        if len(content) > options.max_bytes:
            raise field_error("annotation", _too_large(content, options))
        return replace(answer, annotated_image=content, timings=stopwatch.timings())

    async def _draw_search(
        self, answer: SearchAnswer, request: SearchRequest, options: DrawingOptions
    ) -> _Drawn:
        query = request.query
        if query is None:
            return _Drawn(warnings=[f"{NOT_DRAWN}: send the picture again with the page token"])
        matches = answer.matches[: options.match_count]
        thumbnails, warnings = await self._load_thumbnails(answer, request, matches)
        if isinstance(query, PictureQuery):
            content, outlines = query.content, search_outlines(answer)
        else:
            content, outlines = thumbnails.pop(query.image_id, b""), []
        if not content:
            reason = "stored images have no pixels, and this image has no thumbnail"
            return _Drawn(warnings=[*warnings, f"{NOT_DRAWN}: {reason}"])
        captioned = [
            CaptionedThumbnail(thumbnails.get(match.image.image_id, b""), match_lines(rank, match))
            for rank, match in enumerate(matches, answer.first_rank)
        ]
        try:
            drawing = await self.renderer.draw(DrawingOrder(content, outlines, captioned, options))
        except ServiceError as error:
            logger().warning("drawing.failed", reason=error.reason)
            return _Drawn(warnings=[*warnings, f"{NOT_DRAWN}: {error.message}"])
        if len(drawing) > options.max_bytes:
            reason = f"annotated_image: left out: {_too_large(drawing, options)}"
            return _Drawn(warnings=[*warnings, reason])
        return _Drawn(drawing, warnings)

    async def _load_thumbnails(
        self, answer: SearchAnswer, request: SearchRequest, matches: Sequence[Match]
    ) -> tuple[dict[str, bytes], list[str]]:
        """Return the thumbnails to draw, and a warning if the store is unavailable."""
        image_ids = [match.image.image_id for match in matches]
        if isinstance(request.query, StoredQuery):
            image_ids.append(request.query.image_id)
        thumbnails, error = await load_thumbnails(
            self.thumbnails, request.library_id, image_ids, answer.thumbnails
        )
        if error is None:
            return thumbnails, []
        logger().warning("drawing.thumbnails_missing", reason=error.reason)
        return thumbnails, [f"annotated_image: drawn without thumbnails: {error.message}"]


def search_outlines(answer: SearchAnswer) -> list[Outline]:
    """Return the outlines of the searched region, the query's subjects and the matched parts.

    Matches in the same place share an outline. The chosen subject is highlighted; without subjects,
    the place of the first match.
    """
    outlines = subject_outlines(answer.subjects, answer.chosen_subject)
    region, info = answer.searched_region, answer.query_info
    if not outlines and region and info and not is_whole(region, info):
        outlines.append(Outline(region))
    lines_by_place: dict[Box | Quadrilateral, list[str]] = {}
    for rank, match in enumerate(answer.matches[:MAX_MATCHES], answer.first_rank):
        for place in match.instances or filter(None, [match.query_box]):
            lines_by_place.setdefault(place, []).append(" · ".join(match_lines(rank, match)))
    outlines += (
        Outline(place, lines[:MAX_OUTLINE_LINES], row == 0 and not answer.subjects)
        for row, (place, lines) in enumerate(lines_by_place.items())
    )
    return outlines[:MAX_OUTLINES]


def subject_outlines(subjects: Sequence[Subject], chosen: int | None) -> list[Outline]:
    return [
        Outline(subject.box, subject_lines(subject), row == chosen)
        for row, subject in enumerate(subjects)
    ]


def subject_lines(subject: Subject) -> list[str]:
    """Return a subject's category and score, and its colors."""
    category = (
        subject.category.name.replace("_", " ").capitalize() if subject.category else "Subject"
    )
    lines = [f"{category} {subject.score:.2f}"]
    if subject.colors:
        lines.append(", ".join(f"{color.name} {color.share:.0%}" for color in subject.colors))
    return lines


def match_lines(rank: int, match: Match) -> list[str]:
    """Return a match's rank and score, and its image id."""
    return [f"{rank} · {match.score:.2f}", match.image.image_id]


def is_whole(box: Box, info: PictureInfo) -> bool:
    """Return whether a box covers the whole picture."""
    return (
        max(box.x_min, box.y_min) <= WHOLE_TOLERANCE_PX
        and info.width - box.x_max <= WHOLE_TOLERANCE_PX
        and info.height - box.y_max <= WHOLE_TOLERANCE_PX
    )


def _too_large(drawing: bytes, options: DrawingOptions) -> str:
    return (
        f"the drawing has {len(drawing):,} bytes and the answer has room for "
        f"{options.max_bytes:,}: request a JPEG or a smaller max_side_px"
    )
