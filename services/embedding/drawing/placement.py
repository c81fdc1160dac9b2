"""Where labels go, so that none hides another.

Labels are placed one after the other, each at the first of the places around its box that is free
and hides least of other boxes; where all of them are taken, at the nearest free place anywhere,
with a line to its box. Point-feature label placement is NP-hard (Marks and Shieber, 1991), and the
greedy way does well on the few boxes of a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from imagesearch_services.common.types import Box

ORDER_WEIGHT = 0.04
"""What a step down the list of places weighs, against hiding a label's whole area of some box."""
SCAN_STEPS = 48
"""Steps in each direction, where any free place will do."""


@dataclass(frozen=True, slots=True)
class Label:
    """Something to place beside its box."""

    box: Box
    width: int
    height: int
    corners: Sequence[tuple[float, float]] = ()
    """Of a shape that does not fill its box, for labels to stand at."""


def place(
    labels: Sequence[Label], bounds: Box, *, obstacles: Iterable[Box] = ()
) -> list[Box | None]:
    """Find a place inside the bounds for every label, whole pixels.

    Args:
        labels: the most important first.
        bounds: what labels stay inside of.
        obstacles: places that are taken already.

    Returns:
        As many boxes as labels; None where there is no room left. No two overlap.
    """
    taken = list(obstacles)
    boxes = [label.box for label in labels]
    places: list[Box | None] = []
    for label in labels:
        found = _around(label, bounds, taken, boxes) or _anywhere(label, bounds, taken)
        places.append(found)
        if found is not None:
            taken.append(found)
    return places


def overlap(a: Box, b: Box) -> float:
    """Area that two boxes share."""
    width = min(a.x_max, b.x_max) - max(a.x_min, b.x_min)
    height = min(a.y_max, b.y_max) - max(a.y_min, b.y_min)
    return max(0.0, width) * max(0.0, height)


def _around(label: Label, bounds: Box, taken: Sequence[Box], boxes: Sequence[Box]) -> Box | None:
    """Choose among the places that touch the label's box."""
    area = label.width * label.height
    best, best_cost = None, float("inf")
    for order, corner in enumerate(_corners(label)):
        spot = _inside(corner, label, bounds)
        if spot is None or any(overlap(spot, other) for other in taken):
            continue
        hidden = sum(_hidden(spot, box, label.box) for box in boxes)
        cost = hidden / area + ORDER_WEIGHT * order
        if cost < best_cost:
            best, best_cost = spot, cost
    return best


def _hidden(spot: Box, box: Box, own: Box) -> float:
    """Area of a box that a label hides. Its own is the one that may lose some, if it is large."""
    shared = overlap(spot, box)
    if box == own:
        covered = shared / max(1.0, box.width * box.height)
        return shared * covered
    return shared


def _corners(label: Label) -> Iterator[tuple[float, float]]:
    """Give top-left corners of places that touch the box, the most natural one first."""
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


def _anywhere(label: Label, bounds: Box, taken: Sequence[Box]) -> Box | None:
    """Scan for the free place that is nearest to the box."""
    x_room, y_room = int(bounds.width) - label.width, int(bounds.height) - label.height
    if x_room < 0 or y_room < 0:
        return None
    lefts = np.unique(np.rint(bounds.x_min + np.linspace(0, x_room, SCAN_STEPS)))[:, None]
    tops = np.unique(np.rint(bounds.y_min + np.linspace(0, y_room, SCAN_STEPS)))[None, :]
    free = np.ones((lefts.size, tops.size), bool)
    for other in taken:
        free &= (
            (lefts >= other.x_max)
            | (lefts + label.width <= other.x_min)
            | (tops >= other.y_max)
            | (tops + label.height <= other.y_min)
        )
    if not free.any():
        return None
    centre_x = (label.box.x_min + label.box.x_max - label.width) / 2
    centre_y = (label.box.y_min + label.box.y_max - label.height) / 2
    distance = np.where(free, (lefts - centre_x) ** 2 + (tops - centre_y) ** 2, np.inf)
    column, line = np.unravel_index(int(distance.argmin()), distance.shape)
    left, top = int(lefts[column, 0]), int(tops[0, line])
    return Box(left, top, left + label.width, top + label.height)


def _inside(corner: tuple[float, float], label: Label, bounds: Box) -> Box | None:
    """Shift a place into the bounds, at whole pixels; None where it is larger than they are."""
    if label.width > bounds.width or label.height > bounds.height:
        return None
    left = round(min(max(corner[0], bounds.x_min), bounds.x_max - label.width))
    top = round(min(max(corner[1], bounds.y_min), bounds.y_max - label.height))
    return Box(left, top, left + label.width, top + label.height)
