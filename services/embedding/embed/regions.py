"""Proposes regions that look like an inserted picture: pasted in, shown on a screen, or framed.

A copy descriptor recognizes edited copies of a whole picture, but not a copy that is only a part of
another picture. Since an inserted picture has straight sides, the proposals are rectangles whose
four sides are edges, then blocks of detail on a flat background, then a grid of windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import Box

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]

ANALYSIS_SIDE_PX = 512
"""Maximum long side of a picture when edges are detected, in pixels; the sides of inserted pictures
are still visible at this size."""

MIN_SIDE = 0.1
"""Minimum side of a proposal, as a share of the picture's long side."""

MAX_AREA = 0.92
"""Maximum area of a proposal, as a share of the picture; a larger region is nearly the picture."""

MAX_STEP = 48
"""Difference of neighboring pixels at which the strength of an edge is capped, levels."""

LINE_STRETCH_PX = 31
"""Length over which the strength of a line is averaged, pixels at analysis size."""

ADJACENT_PX = (3, 4)
"""Distances from a line at which the adjacent texture is measured, outside the line's own blur,
pixels at analysis size."""

MIN_LINENESS = 4.0
"""Minimum contrast of a line to the adjacent texture, averaged over its length, levels."""

SAME_LINE_PX = 2
"""Maximum distance of lines that are merged, pixels at analysis size."""

MAX_LINES = 28
"""Maximum lines in each direction."""

MIN_SUPPORT = 0.55
"""Minimum share of edge pixels on each of a rectangle's four sides."""

FLAT_SPREAD = 6
"""Maximum difference of neighboring pixels in a flat background, levels."""

MIN_FLAT_SHARE = 0.03
"""Minimum share of flat background for blocks to be proposed in a picture."""

MIN_ANALYSIS_SIDE_PX = 8
"""Minimum shorter side of the analyzed picture, in pixels: that of the smallest proposal."""

SAME_IOU = 0.75
"""Minimum intersection over union of two proposals that count as the same."""

INSET = 0.01
"""Share of a proposal that is cut off at each side, to exclude a frame or a shadow."""

MIN_CONTRAST = 8.0
"""Minimum standard deviation of a proposal, grey levels; embeddings of flat regions are alike."""


@dataclass(frozen=True, slots=True)
class Region:
    """A region that looks like an inserted picture."""

    box: Box
    """The region, in pixels of the analyzed picture."""
    source: str
    """Name of the rule that proposed the region: "rectangle", "block" or "grid"."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A box in pixels at analysis size, and its score."""

    box: tuple[int, int, int, int]
    score: float
    source: str


def propose_regions(pixels: Pixels, max_regions: int) -> list[Region]:
    """Propose regions that look like an inserted picture, most promising first.

    Args:
        pixels: uint8 RGB, [height, width, 3].
        max_regions: maximum number of regions.

    Returns:
        Regions inside the picture that are neither flat nor nearly the whole picture; none if the
        picture is too thin to contain one.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, ANALYSIS_SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if min(size) < MIN_ANALYSIS_SIDE_PX:
        return []
    small: Pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    grey: Pixels = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
    chosen: list[_Candidate] = []
    for candidate in _candidates(small):
        if len(chosen) == max_regions:
            break
        if _is_flat(grey, candidate.box):
            continue
        if all(_iou(candidate.box, other.box) < SAME_IOU for other in chosen):
            chosen.append(candidate)
    x_scale, y_scale = width / size[0], height / size[1]
    return [_region(candidate, x_scale, y_scale) for candidate in chosen]


def _candidates(small: Pixels) -> Iterator[_Candidate]:
    """Yield candidates, best first: rectangles, blocks, the grid."""
    yield from _rectangles(small)
    yield from _blocks(small)
    yield from _grid(small)


def _rectangles(small: Pixels) -> list[_Candidate]:
    """Find rectangles whose four sides are edges."""
    height, width = small.shape[:2]
    shortest = max(8, round(MIN_SIDE * max(height, width)))
    vertical = _lineness(small)
    horizontal = _lineness(np.ascontiguousarray(small.transpose(1, 0, 2)))
    columns = _lines(vertical)
    rows = _lines(horizontal)
    return _boxes_between(columns, rows, vertical > 0, horizontal.T > 0, shortest)


def _lineness(small: Pixels) -> npt.NDArray[np.float32]:
    """Return the strength of a vertical line through each pixel, [height, width].

    A line is a column along which horizontal neighbors differ more than in adjacent columns:
    texture has edges in many columns, the side of a pasted picture in a single column. The value at
    [y, x] is the difference between the columns x - 1 and x.
    """
    height, width = small.shape[:2]
    steps = np.zeros((height, width), np.float32)
    difference = cv2.absdiff(small[:, 1:], small[:, :-1]).max(axis=2)
    steps[:, 1:] = np.minimum(difference, MAX_STEP)
    along = cv2.blur(steps, (1, LINE_STRETCH_PX), borderType=cv2.BORDER_REFLECT)
    adjacent = np.zeros_like(along)
    for offset in ADJACENT_PX:
        np.maximum(adjacent[:, offset:], along[:, :-offset], out=adjacent[:, offset:])
        np.maximum(adjacent[:, :-offset], along[:, offset:], out=adjacent[:, :-offset])
    return np.asarray(np.maximum(along - adjacent - MIN_LINENESS, 0), np.float32)


def _lines(lineness: npt.NDArray[np.float32]) -> Ints:
    """Return the columns with the strongest lines, and the picture's own sides."""
    strength = lineness.sum(axis=0)
    kept: list[int] = []
    for position in np.argsort(-strength, kind="stable"):
        if len(kept) == MAX_LINES or strength[position] <= 0:
            break
        if all(abs(int(position) - other) > SAME_LINE_PX for other in kept):
            kept.append(int(position))
    return np.array(sorted({0, lineness.shape[1], *kept}), np.intp)


def _boxes_between(
    columns: Ints, rows: Ints, vertical: Mask, horizontal: Mask, shortest: int
) -> list[_Candidate]:
    """Return boxes bounded by two columns and two rows, scored by the edges along their sides."""
    height, width = vertical.shape
    x0, x1 = _pairs(columns, shortest)
    y0, y1 = _pairs(rows, shortest)
    if not len(x0) or not len(y0):
        return []
    # Shares of edge pixels on each line between all pairs of positions, [lines, pairs].
    side_v = _support(vertical, columns, y0, y1)
    side_h = _support(horizontal.T, rows, x0, x1)
    at_column = {int(column): index for index, column in enumerate(columns)}
    at_row = {int(row): index for index, row in enumerate(rows)}
    left = side_v[[at_column[int(x)] for x in x0]]
    right = side_v[[at_column[int(x)] for x in x1]]
    top = side_h[[at_row[int(y)] for y in y0]].T
    bottom = side_h[[at_row[int(y)] for y in y1]].T
    sides = np.stack([left, right, top, bottom])
    weakest = sides.min(axis=0)
    mean = sides.mean(axis=0)
    areas = (x1 - x0)[:, None] * (y1 - y0)[None, :]
    fits = (weakest >= MIN_SUPPORT) & (areas <= MAX_AREA * width * height)
    scores = np.where(fits, 0.5 * weakest + 0.5 * mean + 0.3 * np.sqrt(areas / (width * height)), 0)
    order = np.argsort(-scores, axis=None, kind="stable")[:200]
    found: list[_Candidate] = []
    for flat in order:
        i, j = np.unravel_index(flat, scores.shape)
        if scores[i, j] <= 0:
            break
        box = (int(x0[i]), int(y0[j]), int(x1[i]), int(y1[j]))
        found.append(_Candidate(box, float(scores[i, j]), "rectangle"))
    return found


def _pairs(positions: Ints, shortest: int) -> tuple[Ints, Ints]:
    """Return all pairs (low, high) of positions at least `shortest` apart."""
    low, high = np.meshgrid(positions, positions, indexing="ij")
    fits = high - low >= shortest
    return low[fits], high[fits]


def _support(edges: Mask, lines: Ints, starts: Ints, ends: Ints) -> npt.NDArray[np.float64]:
    """Return the share of edge pixels on each line between each start and end.

    The picture's own sides count as edges.

    Args:
        edges: edge pixels, [length, position].
        lines: positions of the lines.
        starts: first pixels along the line.
        ends: last pixels along the line, exclusive.

    Returns:
        [lines, starts].
    """
    length, last = edges.shape
    dilated = edges.copy()
    dilated[:, 1:] |= edges[:, :-1]
    dilated[:, :-1] |= edges[:, 1:]
    columns = np.ones((length, len(lines)), np.bool_)
    inside = (lines > 0) & (lines < last)
    columns[:, inside] = dilated[:, lines[inside]]
    sums = np.zeros((length + 1, len(lines)), np.int64)
    np.cumsum(columns, axis=0, out=sums[1:])
    shares: npt.NDArray[np.float64] = ((sums[ends] - sums[starts]) / (ends - starts)[:, None]).T
    return shares


def _blocks(small: Pixels) -> list[_Candidate]:
    """Find blocks of detail on a flat background, such as pictures on a page or a screen."""
    height, width = small.shape[:2]
    shortest = max(8, round(MIN_SIDE * max(height, width)))
    kernel = np.ones((3, 3), np.uint8)
    spread = cv2.dilate(small, kernel).astype(np.int16) - cv2.erode(small, kernel)
    detail = (spread.max(axis=2) > FLAT_SPREAD).astype(np.uint8)
    if detail.mean() > 1 - MIN_FLAT_SHARE:
        return []
    joined = cv2.morphologyEx(detail, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    # The opening removes lines of text and thin frames, and keeps pictures.
    solid = cv2.morphologyEx(
        joined, cv2.MORPH_OPEN, np.ones((shortest // 2, shortest // 2), np.uint8)
    )
    count, _, stats, _ = cv2.connectedComponentsWithStats(solid)
    found = []
    for label in range(1, count):
        x, y, w, h, area = (int(value) for value in stats[label])
        if min(w, h) >= shortest and w * h <= MAX_AREA * width * height:
            found.append(_Candidate((x, y, x + w, y + h), area / (width * height), "block"))
    return sorted(found, key=lambda candidate: -candidate.score)


def _grid(small: Pixels) -> Iterator[_Candidate]:
    """Yield windows over the whole picture: the middle first, then halves, then thirds."""
    height, width = small.shape[:2]
    for share, steps in ((0.6, 2), (0.5, 3), (0.36, 4)):
        w, h = round(width * share), round(height * share)
        xs = np.linspace(0, width - w, steps).round().astype(int)
        ys = np.linspace(0, height - h, steps).round().astype(int)
        if steps % 2 == 0:
            x, y = (width - w) // 2, (height - h) // 2
            yield _Candidate((x, y, x + w, y + h), share, "grid")
        for y in ys:
            for x in xs:
                yield _Candidate((int(x), int(y), int(x) + w, int(y) + h), share, "grid")


def _is_flat(grey: Pixels, box: tuple[int, int, int, int]) -> bool:
    x_min, y_min, x_max, y_max = box
    return float(grey[y_min:y_max, x_min:x_max].std()) < MIN_CONTRAST


def _iou(a: Sequence[int], b: Sequence[int]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return common / (areas - common)


def _region(candidate: _Candidate, x_scale: float, y_scale: float) -> Region:
    x_min, y_min, x_max, y_max = candidate.box
    inset = 0.0 if candidate.source == "grid" else INSET
    x_inset, y_inset = (x_max - x_min) * inset, (y_max - y_min) * inset
    inner = Box(x_min + x_inset, y_min + y_inset, x_max - x_inset, y_max - y_inset)
    return Region(inner.scaled(x_scale, y_scale), candidate.source)
