"""Answers drawn: the query with its boxes, and the first matches beside it.

A drawing comes on top of an answer and never costs it: what can't be drawn is a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from imagesearch_services.common.errors import ServiceError, field_error
from imagesearch_services.gateway.model import (
    Box,
    DetectionAnswer,
    Match,
    PictureInfo,
    PictureQuery,
    SearchAnswer,
    StoredQuery,
    Subject,
)

MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")
SIDES_PX = range(64, 4096 + 1)
MOST_MATCHES = 20

WHOLE_TOLERANCE_PX = 1.0
"""A box this near to the picture's edges is the whole picture, and not drawn."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingOptions:
    """How a caller wants an answer drawn."""

    media_type: str = ""
    """One of MEDIA_TYPES; empty: the Embedding service's default."""
    max_side_px: int = 0
    """64 to 4,096; 0: the Embedding service's default."""
    match_count: int = 0
    """Matches beside the query, 0 to 20."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A shape to draw on a picture, with words."""

    shape: Box | Sequence[Point]
    """A box, or four corners; pixels of the picture as shown."""
    lines: Sequence[str] = ()
    is_highlighted: bool = False


@dataclass(frozen=True, slots=True)
class Captioned:
    """A small picture with words; without a file it is an empty frame."""

    content: bytes
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class DrawingOrder:
    """What the Embedding service is to draw."""

    content: bytes
    outlines: Sequence[Outline]
    beside: Sequence[Captioned]
    options: DrawingOptions


@dataclass(frozen=True, slots=True)
class Drawn:
    """A drawing, or why there is none."""

    content: bytes = b""
    warnings: Sequence[str] = ()


class Painter(Protocol):
    """The Embedding service, as far as it draws."""

    async def draw(self, order: DrawingOrder) -> bytes:
        """Give the file."""


class Thumbnails(Protocol):
    """The Catalog, as far as it keeps small pictures."""

    async def get_thumbnails(self, library_id: str, image_ids: Sequence[str]) -> Sequence[bytes]:
        """Give as many as ids; empty where none is kept."""


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
    thumbnails: Thumbnails

    async def of_search(
        self,
        options: DrawingOptions,
        library_id: str,
        query: PictureQuery | StoredQuery | None,
        answer: SearchAnswer,
    ) -> Drawn:
        """Draw a page of matches.

        Args:
            options: checked.
            library_id: where the small pictures are.
            query: a stored one is drawn by its small picture; None, beside a page token, can't be.
            answer: the page.
        """
        matches = answer.matches[: options.match_count]
        ids = [match.image.image_id for match in matches]
        if isinstance(query, StoredQuery):
            ids.append(query.image_id)
        small, warnings = await self._small(library_id, ids)
        if isinstance(query, PictureQuery):
            content, outlines = query.content, search_outlines(answer)
        else:
            content = small.pop() if isinstance(query, StoredQuery) else b""
            outlines = []
        if not content:
            return Drawn(warnings=[*warnings, _why_nothing(query)])
        beside = [
            Captioned(picture, match_lines(rank, match))
            for rank, (picture, match) in enumerate(zip(small, matches, strict=True), 1)
        ]
        drawn = await self._draw(DrawingOrder(content, outlines, beside, options))
        return Drawn(drawn.content, [*warnings, *drawn.warnings])

    async def of_subjects(
        self, options: DrawingOptions, content: bytes, answer: DetectionAnswer
    ) -> Drawn:
        """Draw the subjects of a picture, the main one highlighted."""
        outlines = subject_outlines(answer.subjects, 0)
        return await self._draw(DrawingOrder(content, outlines, (), options))

    async def _small(
        self, library_id: str, image_ids: Sequence[str]
    ) -> tuple[list[bytes], list[str]]:
        """Get small pictures; without them frames stay empty."""
        if not image_ids:
            return [], []
        try:
            return list(await self.thumbnails.get_thumbnails(library_id, image_ids)), []
        except ServiceError as error:
            structlog.get_logger().warning("drawing.no_thumbnails", reason=error.reason)
            warning = f"annotated_image: drawn without small pictures: {error.message}"
            return [b""] * len(image_ids), [warning]

    async def _draw(self, order: DrawingOrder) -> Drawn:
        try:
            return Drawn(await self.painter.draw(order))
        except ServiceError as error:
            structlog.get_logger().warning("drawing.failed", reason=error.reason)
            return Drawn(warnings=[f"annotated_image: not drawn: {error.message}"])


def search_outlines(answer: SearchAnswer) -> list[Outline]:
    """Outline what was searched, the query's subjects and where matches appear in it.

    Matches in the same place share an outline. The subject that was searched with stands out, or
    else the place of the first match.
    """
    outlines = subject_outlines(answer.subjects, answer.chosen_subject)
    region, info = answer.searched_region, answer.query_info
    if not outlines and region and info and not is_whole(region, info):
        outlines.append(Outline(region))
    places: dict[Box, list[str]] = {}
    for rank, match in enumerate(answer.matches[:MOST_MATCHES], 1):
        if match.query_box is not None:
            places.setdefault(match.query_box, []).append(" · ".join(match_lines(rank, match)))
    outlines += (
        Outline(place, lines, row == 0 and not answer.subjects)
        for row, (place, lines) in enumerate(places.items())
    )
    return outlines


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


def _why_nothing(query: PictureQuery | StoredQuery | None) -> str:
    if isinstance(query, StoredQuery):
        return (
            "annotated_image: not drawn: the pixels of a stored image are not kept, and it has no"
            " small picture either"
        )
    return "annotated_image: not drawn: give the picture again beside the page token"
