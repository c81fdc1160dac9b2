"""Pictures in a page, and the outlines over them."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagesearch.client import Box
    from imagesearch.type.v1.geometry_pb2 import Quadrilateral

Point = tuple[float, float]

MAX_SIDE_PX = 1280
"""Long side that a query keeps in a page."""
QUALITY = 82

BADGE_SHARE = 0.085
"""Side of a badge as a share of the picture's, at the width of a phone; elsewhere it is less."""

AROUND = sorted(
    itertools.product(range(-4, 5), repeat=2), key=lambda step: step[0] ** 2 + step[1] ** 2
)
"""Columns and rows of badges around a place, the nearest first."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A shape on a picture."""

    points: Sequence[Point]
    """Corners, pixels of the picture as shown."""
    title: str
    """What it outlines."""
    kind: str = "match"
    """Says how it is drawn: "match", "subject" or "region"."""
    badge: str = ""
    """A character or two at its edge; none where it needs none."""
    link: str = ""
    """Id of the element on the page that tells of it."""
    badge_at: Point = (0.0, 0.0)
    """Centre of the badge, shares of the picture's sides; `figure` finds it."""

    @property
    def svg_points(self) -> str:
        return " ".join(f"{x:.2f},{y:.2f}" for x, y in self.points)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture with outlines."""

    source: str
    """A data URI; empty draws a frame that says so."""
    width: int
    """As shown, pixels: the unit of the outlines."""
    height: int
    alt: str
    outlines: Sequence[Outline] = field(default=())

    @property
    def ratio(self) -> float:
        return self.width / self.height


def figure(
    content: bytes, width: int, height: int, *, alt: str, outlines: Iterable[Outline] = ()
) -> Figure:
    """Put a picture of any format that the suite takes into a page, made small.

    Args:
        content: of the file; what can't be read leaves an empty frame.
        width: as shown, pixels, as the suite told it.
        height: as the width.
        alt: what it shows, for those who don't see it.
        outlines: drawn in their order.
    """
    return Figure(
        source=_small(content),
        width=max(width, 1),
        height=max(height, 1),
        alt=alt,
        outlines=place_badges(outlines, max(width, 1), max(height, 1)),
    )


def thumbnail(
    content: bytes, width: int, height: int, *, alt: str, outlines: Iterable[Outline] = ()
) -> Figure:
    """Put a small picture into a page as the suite gave it: a JPEG.

    Args:
        content: of the file; none leaves an empty frame.
        width: of the picture that it stands for, pixels: the unit of the outlines.
        height: as the width.
        alt: what it shows.
        outlines: drawn in their order.
    """
    return Figure(
        source=data_uri(content, "image/jpeg") if content else "",
        width=max(width, 1),
        height=max(height, 1),
        alt=alt,
        outlines=place_badges(outlines, max(width, 1), max(height, 1)),
    )


def data_uri(content: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def box_points(box: Box) -> list[Point]:
    """Give a box's corners, clockwise from the top left."""
    return [
        (box.x_min, box.y_min),
        (box.x_max, box.y_min),
        (box.x_max, box.y_max),
        (box.x_min, box.y_max),
    ]


def corner_points(corners: Quadrilateral) -> list[Point]:
    return [(point.x, point.y) for point in corners.corners]


def place_badges(outlines: Iterable[Outline], width: int, height: int) -> list[Outline]:
    """Set each badge on its outline where it hides no other, if there is such a place."""
    side_x, side_y = BADGE_SHARE, BADGE_SHARE * width / height
    taken: list[Point] = []
    placed: list[Outline] = []
    for outline in outlines:
        if outline.badge:
            on_it = [(x / width, y / height) for x, y in _along(outline.points)]
            beside_it = [
                (on_it[0][0] + column * side_x, on_it[0][1] + row * side_y)
                for column, row in AROUND
            ]
            candidates = [
                (_clamp(x, side_x / 2), _clamp(y, side_y / 2)) for x, y in (*on_it, *beside_it)
            ]
            # The first of those that overlap least, so that the top-left corner is kept if it can.
            place = min(candidates, key=lambda at: _overlap(at, taken, side_x, side_y))
            taken.append(place)
            outline = replace(outline, badge_at=place)  # noqa: PLW2901
        placed.append(outline)
    return placed


def _along(points: Sequence[Point]) -> list[Point]:
    """Give the corners of a shape, then places along its edges."""
    closed = [*points, points[0]]
    return [
        *points,
        *(
            (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share)
            for share in (0.5, 0.25, 0.75, 0.125, 0.375, 0.625, 0.875)
            for a, b in itertools.pairwise(closed)
        ),
    ]


def _overlap(at: Point, taken: Iterable[Point], side_x: float, side_y: float) -> float:
    """Share of a badge that others would hide."""
    return sum(
        max(0.0, 1 - abs(at[0] - x) / side_x) * max(0.0, 1 - abs(at[1] - y) / side_y)
        for x, y in taken
    )


def _clamp(share: float, margin: float) -> float:
    """Keep a badge inside of the picture."""
    return 0.5 if margin >= 0.5 else min(max(share, margin), 1 - margin)  # noqa: PLR2004


def _small(content: bytes) -> str:
    """Turn, shrink and encode anew what browsers may not read themselves; its metadata stays out.

    The suite has taken the picture by then, or it is shown without one.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415  # waits for a page with pictures

    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.draft("RGB", (MAX_SIDE_PX, MAX_SIDE_PX))
            upright = ImageOps.exif_transpose(opened)
            rgba = upright.convert("RGBA")
    except Exception:  # noqa: BLE001  # Pillow raises nearly every type there is
        return ""
    flat = Image.new("RGB", rgba.size, "white")
    flat.paste(rgba, mask=rgba.getchannel("A"))
    flat.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    encoded = io.BytesIO()
    flat.save(encoded, "WEBP", quality=QUALITY, method=2)
    return data_uri(encoded.getvalue(), "image/webp")
