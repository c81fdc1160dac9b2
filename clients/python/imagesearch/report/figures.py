"""Pictures of a page, with outlines drawn over them."""

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
"""Maximum long side of a query picture in a page, in pixels."""
QUALITY = 82
"""WebP quality of a query picture."""

BADGE_SHARE = 0.085
"""Side of a badge on a phone, as a share of the picture's width; lower on larger screens."""

NEARBY_CELLS = sorted(
    itertools.product(range(-4, 5), repeat=2), key=lambda step: step[0] ** 2 + step[1] ** 2
)
"""Offsets of the cells around a position in a grid of badges: column and row, nearest first."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A shape on a picture."""

    points: Sequence[Point]
    """Corners, in pixels of the upright picture."""
    title: str
    """Description of the outlined part."""
    kind: str = "match"
    """Style: "match", "subject" or "region"."""
    badge: str = ""
    """Label of one or two characters on the outline; empty: no label."""
    link: str = ""
    """Id of the page element that the badge links to."""
    badge_at: Point = (0.0, 0.0)
    """Center of the badge, as shares of the picture's width and height; set by `figure`."""

    @property
    def svg_points(self) -> str:
        return " ".join(f"{x:.2f},{y:.2f}" for x, y in self.points)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture with outlines."""

    source: str
    """Data URI of the picture; empty: an empty frame is shown."""
    width: int
    """Width of the upright picture, in pixels, which are the unit of the outlines."""
    height: int
    alt: str
    outlines: Sequence[Outline] = field(default=())

    @property
    def ratio(self) -> float:
        return self.width / self.height


def figure(
    content: bytes, width: int, height: int, *, alt: str, outlines: Iterable[Outline] = ()
) -> Figure:
    """Return the figure of a picture file, scaled down. All formats of the suite are supported.

    Args:
        content: picture file; an unreadable file results in an empty frame.
        width: width of the upright picture, in pixels, as reported by the suite.
        height: height of the upright picture, in pixels.
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
    """Return the figure of a thumbnail of the suite, a JPEG file that is embedded unchanged.

    Args:
        content: JPEG file; an empty file results in an empty frame.
        width: width of the original picture, in pixels, which are the unit of the outlines.
        height: height of the original picture, in pixels.
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
    """Place each badge on its outline, with minimum overlap with other badges."""
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
            # min() returns the first of equal candidates, so the top-left corner is preferred.
            place = min(candidates, key=lambda at: _overlap(at, taken, side_x, side_y))
            taken.append(place)
            outline = replace(outline, badge_at=place)  # noqa: PLW2901
        placed.append(outline)
    return placed


def _along(points: Sequence[Point]) -> list[Point]:
    """Return candidate positions of a badge: the corners of a shape, then points on its edges."""
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
    """Return the overlap with other badges, summed, as a share of a badge's area."""
    return sum(
        max(0.0, 1 - abs(at[0] - x) / side_x) * max(0.0, 1 - abs(at[1] - y) / side_y)
        for x, y in taken
    )


def _clamp(share: float, margin: float) -> float:
    """Return the nearest coordinate at which a badge is within the picture."""
    return 0.5 if margin >= 0.5 else min(max(share, margin), 1 - margin)  # noqa: PLR2004


def _scaled_data_uri(content: bytes) -> str:
    """Return a data URI of the picture: upright, scaled down, in WebP, without metadata.

    Pictures are converted because browsers do not support all formats of the suite. The result for
    an unreadable picture is empty.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415  # imported only for pages with pictures

    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.draft("RGB", (MAX_SIDE_PX, MAX_SIDE_PX))
            upright = ImageOps.exif_transpose(opened)
            rgba = upright.convert("RGBA")
    except Exception:  # noqa: BLE001  # Pillow raises exceptions of many types
        return ""
    flat = Image.new("RGB", rgba.size, "white")
    flat.paste(rgba, mask=rgba.getchannel("A"))
    flat.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    encoded = io.BytesIO()
    flat.save(encoded, "WEBP", quality=QUALITY, method=2)
    return data_uri(encoded.getvalue(), "image/webp")
