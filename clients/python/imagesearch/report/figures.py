"""Pictures in a page, with outlines drawn over them."""

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
"""Maximum long side of a query picture in a page, pixels."""
QUALITY = 82
"""WebP quality of a query picture."""

BADGE_SHARE = 0.085
"""Side of a badge as a share of the picture's width on a phone; the share is lower elsewhere."""

NEARBY_CELLS = sorted(
    itertools.product(range(-4, 5), repeat=2), key=lambda step: step[0] ** 2 + step[1] ** 2
)
"""Offsets around a position in columns and rows of badges, the nearest first."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A shape on a picture."""

    points: Sequence[Point]
    """Corners, pixels of the upright picture."""
    title: str
    """Description of the outlined part."""
    kind: str = "match"
    """Style: "match", "subject" or "region"."""
    badge: str = ""
    """Label of one or two characters at the edge; empty: no label."""
    link: str = ""
    """Id of the page element that the badge links to."""
    badge_at: Point = (0.0, 0.0)
    """Center of the badge, shares of the picture's sides; set by `figure`."""

    @property
    def svg_points(self) -> str:
        return " ".join(f"{x:.2f},{y:.2f}" for x, y in self.points)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture with outlines."""

    source: str
    """Data URI of the picture; empty: a frame is shown instead."""
    width: int
    """Width of the upright picture in pixels, the unit of the outlines."""
    height: int
    alt: str
    outlines: Sequence[Outline] = field(default=())

    @property
    def ratio(self) -> float:
        return self.width / self.height


def figure(
    content: bytes, width: int, height: int, *, alt: str, outlines: Iterable[Outline] = ()
) -> Figure:
    """Return the figure of a picture file, scaled down. Any format of the suite is accepted.

    Args:
        content: picture file; an unreadable one leaves an empty frame.
        width: width of the upright picture in pixels, as reported by the suite.
        height: height of the upright picture in pixels.
        alt: text for screen readers.
        outlines: outlines in drawing order.
    """
    return Figure(
        source=_scaled_data_uri(content),
        width=max(width, 1),
        height=max(height, 1),
        alt=alt,
        outlines=place_badges(outlines, max(width, 1), max(height, 1)),
    )


def thumbnail(
    content: bytes, width: int, height: int, *, alt: str, outlines: Iterable[Outline] = ()
) -> Figure:
    """Return the figure of a thumbnail of the suite, a JPEG file that is not changed.

    Args:
        content: JPEG file; empty: an empty frame.
        width: width of the original picture in pixels, the unit of the outlines.
        height: height of the original picture in pixels.
        alt: text for screen readers.
        outlines: outlines in drawing order.
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
    """Return the corners of a box, clockwise from the top left."""
    return [
        (box.x_min, box.y_min),
        (box.x_max, box.y_min),
        (box.x_max, box.y_max),
        (box.x_min, box.y_max),
    ]


def corner_points(corners: Quadrilateral) -> list[Point]:
    return [(point.x, point.y) for point in corners.corners]


def place_badges(outlines: Iterable[Outline], width: int, height: int) -> list[Outline]:
    """Position each badge on its outline, with as little overlap with other badges as possible."""
    side_x, side_y = BADGE_SHARE, BADGE_SHARE * width / height
    taken: list[Point] = []
    placed: list[Outline] = []
    for outline in outlines:
        if outline.badge:
            on_outline = [(x / width, y / height) for x, y in _along(outline.points)]
            nearby = [
                (on_outline[0][0] + column * side_x, on_outline[0][1] + row * side_y)
                for column, row in NEARBY_CELLS
            ]
            candidates = [
                (_clamp(x, side_x / 2), _clamp(y, side_y / 2)) for x, y in (*on_outline, *nearby)
            ]
            # min() keeps the first of equals, so the top-left corner is preferred.
            place = min(candidates, key=lambda at: _overlap(at, taken, side_x, side_y))
            taken.append(place)
            outline = replace(outline, badge_at=place)  # noqa: PLW2901
        placed.append(outline)
    return placed


def _along(points: Sequence[Point]) -> list[Point]:
    """Return the corners of a shape, then positions along its edges."""
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
    """Return the share of a badge that other badges would hide."""
    return sum(
        max(0.0, 1 - abs(at[0] - x) / side_x) * max(0.0, 1 - abs(at[1] - y) / side_y)
        for x, y in taken
    )


def _clamp(share: float, margin: float) -> float:
    """Return a position at which a badge lies within the picture."""
    return 0.5 if margin >= 0.5 else min(max(share, margin), 1 - margin)  # noqa: PLR2004


def _scaled_data_uri(content: bytes) -> str:
    """Return a data URI of the picture: upright, scaled down, encoded as WebP, without metadata.

    Browsers cannot read all formats of the suite. The result for an unreadable picture is empty.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415  # imported only for pages with pictures

    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.draft("RGB", (MAX_SIDE_PX, MAX_SIDE_PX))
            upright = ImageOps.exif_transpose(opened)
            rgba = upright.convert("RGBA")
    except Exception:  # noqa: BLE001  # Pillow raises many types
        return ""
    flat = Image.new("RGB", rgba.size, "white")
    flat.paste(rgba, mask=rgba.getchannel("A"))
    flat.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    encoded = io.BytesIO()
    flat.save(encoded, "WEBP", quality=QUALITY, method=2)
    return data_uri(encoded.getvalue(), "image/webp")
