"""Places labels next to their boxes so that no two labels overlap.

Labels are placed greedily: each takes the cheapest free position around its box, where the cost is
the area of other boxes that it would hide. If no position around the box is free, the label takes
the nearest free position anywhere, and a line connects it to its box. Point-feature label placement
is NP-hard (Marks and Shieber, 1991); a greedy placement is good enough for the few boxes of a
picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from imagesearch_services.common.types import Box

ORDER_WEIGHT = 0.04
"""Cost of each step down the list of preferred positions. A label that hides other boxes with its
whole area costs 1."""
SCAN_STEPS = 48
"""Number of positions that are scanned along each axis when no position around the box is free."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label to place next to its box."""

    box: Box
    """The labelled box, in pixels."""
    width: int
    """Width of the label, in pixels."""
    height: int
    """Height of the label, in pixels."""
    corners: Sequence[tuple[float, float]] = ()
    """Corners (x, y) of a shape that does not fill `box`, whose label may touch its top or bottom
    corner; empty for an upright box."""


def place(
    labels: Sequence[Label], bounds: Box, *, obstacles: Iterable[Box] = ()
) -> list[Box | None]:
    """Place each label where it covers no obstacle and no other label.

    Args:
        labels: the most important first.
        bounds: the area that labels may cover.
        obstacles: boxes inside the bounds that labels must not cover.

    Returns:
        The box of each label in whole pixels, in the order of `labels`; None where there is no
        room. The boxes do not overlap.
    """
    occupied = list(obstacles)
    labelled_boxes = [label.box for label in labels]
    placements: list[Box | None] = []
    for label in labels:
        placement = _place_around(label, bounds, occupied, labelled_boxes)
        placement = placement or _place_nearest(label, bounds, occupied)
        placements.append(placement)
        if placement is not None:
            occupied.append(placement)
    return placements


def overlap(a: Box, b: Box) -> float:
    """Return the area that two boxes share."""
    width = min(a.x_max, b.x_max) - max(a.x_min, b.x_min)
    height = min(a.y_max, b.y_max) - max(a.y_min, b.y_min)
    return max(0.0, width) * max(0.0, height)


def _place_around(
    label: Label, bounds: Box, occupied: Sequence[Box], labelled_boxes: Sequence[Box]
) -> Box | None:
    """Return the cheapest free position that touches the label's box."""
    area = label.width * label.height
    best, best_cost = None, float("inf")
    for order, corner in enumerate(_adjacent_corners(label)):
        position = _moved_inside(corner, label, bounds)
        if position is None or any(overlap(position, other) for other in occupied):
            continue
        hidden = sum(_hidden_area(position, box, label.box) for box in labelled_boxes)
        cost = hidden / area + ORDER_WEIGHT * order
        if cost < best_cost:
            best, best_cost = position, cost
    return best


def _hidden_area(position: Box, box: Box, own_box: Box) -> float:
    """Return the area of a box that a label hides.

    For the label's own box, the area is multiplied by the hidden share of the box, so that hiding a
    corner of a large box costs little.
    """
    shared = overlap(position, box)
    if box == own_box:
        covered = shared / max(1.0, box.width * box.height)
        return shared * covered
    return shared


def _adjacent_corners(label: Label) -> Iterator[tuple[float, float]]:
    """Yield top-left corners (x, y) of positions that touch the box, preferred ones first."""
    box, width, height = label.box, label.width, label.height
    if label.corners:
        top = min(label.corners, key=lambda corner: corner[1])
        bottom = max(label.corners, key=lambda corner: corner[1])
        yield top[0] - width / 2, top[1] - height
        yield bottom[0] - width / 2, bottom[1]
    above, below = box.y_min - height, box.y_max
    yield box.x_min, above
    yield box.x_min, box.y_min
    yield box.x_min, below
    yield box.x_max - width, above
    yield box.x_max - width, below
    yield box.x_max - width, box.y_min
    yield box.x_min, box.y_max - height
    yield box.x_max - width, box.y_max - height
    yield box.x_max, box.y_min
    yield box.x_min - width, box.y_min
    yield box.x_max, box.y_max - height
    yield box.x_min - width, box.y_max - height
    yield (box.x_min + box.x_max - width) / 2, above
    yield (box.x_min + box.x_max - width) / 2, below


def _place_nearest(label: Label, bounds: Box, occupied: Sequence[Box]) -> Box | None:
    """Scan the bounds for the free position nearest to the label's box."""
    x_room, y_room = int(bounds.width) - label.width, int(bounds.height) - label.height
    if x_room < 0 or y_room < 0:
        return None
    lefts = np.unique(np.rint(bounds.x_min + np.linspace(0, x_room, SCAN_STEPS)))[:, None]
    tops = np.unique(np.rint(bounds.y_min + np.linspace(0, y_room, SCAN_STEPS)))[None, :]
    free = np.ones((lefts.size, tops.size), bool)
    for other in occupied:
        free &= (
            (lefts >= other.x_max)
            | (lefts + label.width <= other.x_min)
            | (tops >= other.y_max)
            | (tops + label.height <= other.y_min)
        )
    if not free.any():
        return None
    ideal_left = (label.box.x_min + label.box.x_max - label.width) / 2
    ideal_top = (label.box.y_min + label.box.y_max - label.height) / 2
    distance = np.where(free, (lefts - ideal_left) ** 2 + (tops - ideal_top) ** 2, np.inf)
    column, row = np.unravel_index(int(distance.argmin()), distance.shape)
    left, top = int(lefts[column, 0]), int(tops[0, row])
    return Box(left, top, left + label.width, top + label.height)


def _moved_inside(corner: tuple[float, float], label: Label, bounds: Box) -> Box | None:
    """Move a position into the bounds, in whole pixels; None if the label exceeds the bounds."""
    if label.width > bounds.width or label.height > bounds.height:
        return None
    left = round(min(max(corner[0], bounds.x_min), bounds.x_max - label.width))
    top = round(min(max(corner[1], bounds.y_min), bounds.y_max - label.height))
    return Box(left, top, left + label.width, top + label.height)
