"""Parts of a picture in one flat color: what bare logos, letters and other glyphs look like.

A photo has few places of one color with a sharp rim all around. Colors that many flat pixels near
edges share are taken one by one; of what has such a color, pieces that lie near each other belong
together, since most glyphs have several.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

SIDE_PX = 560
"""Long side that colors are looked for at."""
MASK_SIDE_PX = 128
"""Long side that what was found is drawn at."""
MAX_SEGMENTS = 24
"""The best are kept."""

BIN = np.array((6, 4, 4), np.uint8)
"""Of the histogram, in L*a*b* as OpenCV scales it to bytes."""
TOLERANCE = np.array((16, 9, 9))
"""How far from its color a pixel may be."""
MAX_COLORS = 12
LEAST_SHARE = 0.0004
"""Of the picture's pixels that a color must have."""
FLAT_RANGE = 6
"""Of a flat pixel's neighbours along at least one line."""
EDGE_STRENGTH = 50
NEAR_EDGE_PX = 3
GAPS_PX = (0, 5, 12, 24)
"""Between pieces that belong together; each is tried."""
LEAST_PIECE_PX = 12
LEAST_SIDE_PX = 32
AREA_SHARES = (0.0015, 0.4)
"""Of the picture that a segment may have."""
LEAST_QUALITY = 0.1
FULL_PICTURE = 0.9
"""A piece that reaches so far across and down is the ground."""
PADDING = 0.08
GROUND_RANGE = 24
"""Of the colors along a flat picture's edge, each channel."""
MOSTLY = 0.96
INK_DISTANCE = 35
MOSTLY_TWO_COLORS = 0.97
LEAST_INK = 0.004
HALF = 0.5
BLUR_SHRINK = 4
"""How much smaller the ground's colors are blurred at."""
MOST_PIECES = 32
"""Of a shape; more are a pattern, which has no outline of its own."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part in one color."""

    mask: Floats
    """How much of each pixel has the color, 0 to 1, [height, width]."""
    origin: tuple[float, float]
    """Of the mask in the picture, pixels."""
    scale: float
    """Pixels of the mask for each of the picture."""
    quality: float
    """How flat it is, times the share of its rim that is a sharp edge; 0 to 1."""


@dataclass(frozen=True, slots=True)
class _Pieces:
    """Connected pixels of one color."""

    labels: npt.NDArray[np.int32]
    boxes: npt.NDArray[np.int32]
    """Left, top, width, height, area, by label."""
    flat: Ints
    """Flat pixels, by label."""
    rim: Ints
    """Pixels around, by label."""
    sharp_rim: Ints
    """Pixels around that have quite another color, by label."""
    kept: Bools


@dataclass(frozen=True, slots=True)
class _Group:
    """Pieces that belong together."""

    quality: float
    box: tuple[int, ...]
    """Left, top, right, bottom."""
    pieces: _Pieces
    members: Ints

    def mask(self) -> Pixels:
        """Draw it, uint8 as large as its box."""
        x_min, y_min, x_max, y_max = self.box
        is_member = np.zeros(len(self.pieces.kept), np.uint8)
        is_member[self.members] = 1
        return is_member[self.pieces.labels[y_min:y_max, x_min:x_max]]


def segments(rgb: Pixels) -> list[Segment]:
    """Find parts in one color, best first, at most `MAX_SEGMENTS`."""
    factor = min(1.0, SIDE_PX / max(rgb.shape[:2]))
    small = rgb
    if factor < 1:
        small = _resized(rgb, factor)
    if min(small.shape[:2]) < LEAST_SIDE_PX:
        return []
    lab = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2LAB), np.uint8)
    flat = _flat(lab)
    found = [
        group
        for color in _colors(lab, flat & _near_edges(lab))
        for group in _groups(_pieces(lab, flat, color))
    ]
    found.sort(key=lambda group: -group.quality)
    drawn = (_drawn(rgb, group, factor) for group in found[:MAX_SEGMENTS])
    return [segment for segment in drawn if segment is not None]


def _resized(pixels: Pixels, factor: float) -> Pixels:
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=way), np.uint8)


def _lines() -> list[Pixels]:
    """Give the four lines of five pixels through the middle of a square."""
    across = np.zeros((5, 5), np.uint8)
    across[2] = 1
    slope = np.eye(5, dtype=np.uint8)
    return [across, across.T.copy(), slope, slope[::-1].copy()]


def _flat(lab: Pixels) -> Bools:
    """Say which pixels have one color along a line: strokes are flat along themselves."""
    is_flat = np.zeros(lab.shape[:2], bool)
    for line in _lines():
        spread = cv2.subtract(cv2.dilate(lab, line), cv2.erode(lab, line))
        lightness, *color = cv2.split(spread)
        is_flat |= cv2.max(lightness, cv2.max(*color)) <= FLAT_RANGE
    return is_flat


def _near_edges(lab: Pixels) -> Bools:
    strength = np.zeros(lab.shape[:2], np.float32)
    for channel in cv2.split(lab):
        across, down = (cv2.Sobel(channel, cv2.CV_32F, *way) for way in ((1, 0), (0, 1)))
        strength += cv2.magnitude(across, down)
    side = 2 * NEAR_EDGE_PX + 1
    edges = (strength > EDGE_STRENGTH).astype(np.uint8)
    return np.asarray(cv2.dilate(edges, np.ones((side, side), np.uint8)), bool)


def _colors(lab: Pixels, chosen: Bools) -> Iterator[Doubles]:
    """Give colors that many of the chosen pixels have and few have nearly."""
    bins = (lab[chosen] // BIN).astype(np.int64)
    if not len(bins):
        return
    first = bins.min(axis=0)
    shape = tuple(bins.max(axis=0) - first + 1)
    rows = np.ravel_multi_index(tuple((bins - first).T), shape)
    counts = np.bincount(rows, minlength=int(np.prod(shape))).reshape(shape).astype(np.float64)
    near, around = _summed(counts, 1), _summed(counts, 3)
    enough = near >= LEAST_SHARE * lab.shape[0] * lab.shape[1]
    scores = np.where(enough, near**2 / np.maximum(around, 1), 0)
    for _ in range(MAX_COLORS):
        peak = np.array(np.unravel_index(scores.argmax(), shape))
        if not scores[tuple(peak)] > 0:
            return
        low = np.maximum(peak - 1, 0)
        part = counts[tuple(slice(a, b) for a, b in zip(low, peak + 2, strict=True))]
        places = np.indices(part.shape).reshape(3, -1)
        mean = (places * part.ravel()).sum(axis=1) / part.sum()
        yield (mean + low + first + 0.5) * BIN - 0.5
        low = np.maximum(peak - 2, 0)
        scores[tuple(slice(a, b) for a, b in zip(low, peak + 3, strict=True))] = 0


def _summed(counts: Doubles, reach: int) -> Doubles:
    """Add up the bins so far around each."""
    total = counts
    for axis in range(counts.ndim):
        padding = [(reach + 1, reach) if each == axis else (0, 0) for each in range(counts.ndim)]
        running = np.cumsum(np.pad(total, padding), axis=axis)
        width = counts.shape[axis]
        upper = np.take(running, range(2 * reach + 1, 2 * reach + 1 + width), axis=axis)
        total = upper - np.take(running, range(width), axis=axis)
    return total


def _pieces(lab: Pixels, flat: Bools, color: Doubles) -> _Pieces:
    close, wide = (
        cv2.inRange(
            lab,
            np.clip(color - times * TOLERANCE, 0, 255),
            np.clip(color + times * TOLERANCE, 0, 255),
        )
        for times in (1, 2)
    )
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(close, connectivity=8)
    height, width = labels.shape
    is_ground = (boxes[:, 2] > FULL_PICTURE * width) & (boxes[:, 3] > FULL_PICTURE * height)
    kept = (boxes[:, 4] >= LEAST_PIECE_PX) & ~is_ground
    kept[0] = False
    # The rim as places in the picture: there are far fewer of them than pixels.
    grown = cv2.dilate(labels.astype(np.float32), np.ones((7, 7), np.uint8))
    rim = np.flatnonzero((grown > 0) & (cv2.dilate(close, np.ones((5, 5), np.uint8)) == 0))
    owners = grown.ravel()[rim].astype(np.int64)
    sharp = wide.ravel()[rim] == 0
    return _Pieces(
        np.asarray(labels, np.int32),
        np.asarray(boxes, np.int32),
        np.bincount(labels.ravel()[np.flatnonzero((close > 0) & flat)], minlength=count),
        np.bincount(owners, minlength=count),
        np.bincount(owners[sharp], minlength=count),
        np.asarray(kept, bool),
    )


def _groups(pieces: _Pieces) -> Iterator[_Group]:
    """Put pieces together that lie near each other."""
    kept = np.flatnonzero(pieces.kept)
    # At half the size; any pixel of a piece tells which group it is in.
    halved = pieces.labels[::2, ::2], pieces.labels[1::2, 1::2]
    height, width = halved[1].shape
    outside = np.ones((height, width), np.uint8)
    places = np.full(len(pieces.kept), -1, np.int64)
    for labels in halved:
        pixels = np.flatnonzero(pieces.kept[labels[:height, :width]])
        rows, columns = np.divmod(pixels, width)
        outside[rows, columns] = 0
        places[labels[rows, columns]] = pixels
    distances = cv2.distanceTransform(outside, cv2.DIST_L2, 3)
    kept = kept[places[kept] >= 0]
    seen: set[tuple[int, ...]] = set()
    for gap in GAPS_PX:
        owners: Ints = kept
        if gap:
            _, joined = cv2.connectedComponents(
                (distances <= gap / 2).astype(np.uint8), connectivity=8
            )
            owners = np.asarray(joined.ravel()[places[kept]], np.int64)
        for box, quality, members in _measured(pieces, kept, owners):
            if box not in seen:
                seen.add(box)
                yield _Group(quality, box[:4], pieces, members)


def _measured(
    pieces: _Pieces, kept: Ints, owners: Ints
) -> Iterator[tuple[tuple[int, ...], float, Ints]]:
    """Give the boxes and areas, the qualities and the pieces of groups of a fair size."""
    if not len(kept):
        return
    order = np.argsort(owners, kind="stable")
    kept, owners = kept[order], owners[order]
    starts = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
    left, top, width, height, areas = pieces.boxes[kept].T
    edges = (
        np.minimum.reduceat(left, starts),
        np.minimum.reduceat(top, starts),
        np.maximum.reduceat(left + width, starts),
        np.maximum.reduceat(top + height, starts),
    )
    area = np.add.reduceat(areas, starts)
    flat, rim, sharp = (
        np.add.reduceat(counts[kept], starts)
        for counts in (pieces.flat, pieces.rim, pieces.sharp_rim)
    )
    qualities = flat / area * sharp / np.maximum(rim, 1)
    least, most = (share * pieces.labels.size for share in AREA_SHARES)
    sides = np.maximum(edges[2] - edges[0], edges[3] - edges[1])
    fair = (sides >= LEAST_SIDE_PX) & (area >= least) & (area <= most)
    ends = np.append(starts[1:], len(kept))
    for row in np.flatnonzero(fair & (qualities > LEAST_QUALITY)):
        box = tuple(int(edge[row]) for edge in (*edges, area))
        yield box, float(qualities[row]), kept[starts[row] : ends[row]]


def _drawn(rgb: Pixels, group: _Group, factor: float) -> Segment | None:
    """Draw a group with soft edges, half way to the colors around it."""
    x_min, y_min, x_max, y_max = group.box
    padding = int(PADDING * max(x_max - x_min, y_max - y_min)) + 3
    mask = np.pad(group.mask(), padding)
    height, width = rgb.shape[:2]
    left, top = round((x_min - padding) / factor), round((y_min - padding) / factor)
    right, bottom = round((x_max + padding) / factor), round((y_max + padding) / factor)
    crop = rgb[max(0, top) : min(height, bottom), max(0, left) : min(width, right)]
    padded = cv2.copyMakeBorder(
        crop,
        max(0, -top),
        max(0, bottom - height),
        max(0, -left),
        max(0, right - width),
        cv2.BORDER_REPLICATE,
    )
    scale = MASK_SIDE_PX / max(padded.shape[:2])
    crop = _resized(np.asarray(padded, np.uint8), scale)
    size = crop.shape[1::-1]
    mask = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    if not mask.any():
        return None
    soft = _soft_mask(crop, mask)
    return Segment(soft, (float(left), float(top)), scale, group.quality)


def _soft_mask(crop: Pixels, mask: Pixels) -> Floats:
    colors = crop.astype(np.float32)
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8))
    ink = np.median(colors[(inner if inner.sum() > LEAST_PIECE_PX else mask) > 0], axis=0)
    outside = (cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0).astype(np.float32)
    ground = _ground(colors, outside)
    contrast = ink.astype(np.float32) - ground
    power = np.maximum(np.einsum("yxc,yxc->yx", contrast, contrast), 60)  # less is noise
    shares = np.einsum("yxc,yxc->yx", colors - ground, contrast) / power
    near = cv2.dilate(mask, np.ones((7, 7), np.uint8))
    return np.asarray(np.clip(shares, 0, 1) * near, np.float32)


def _ground(colors: Floats, outside: Floats) -> Floats:
    """Give the color around each pixel; blurred small, since so wide a blur leaves no detail."""
    weighed = np.dstack([colors * outside[..., None], outside])
    height, width = outside.shape
    size = max(1, width // BLUR_SHRINK), max(1, height // BLUR_SHRINK)
    small = cv2.resize(weighed, size, interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(small, (0, 0), MASK_SIDE_PX / 10 / BLUR_SHRINK)
    blurred = cv2.resize(blurred, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(blurred[..., :3] / np.maximum(blurred[..., 3:], 1e-3), np.float32)


def flat_picture_mask(rgb: Pixels) -> Segment | None:
    """Give what lies on the ground of a picture of two colors; None for other pictures."""
    scale = MASK_SIDE_PX / max(rgb.shape[:2])
    colors = _resized(rgb, scale).astype(np.float32)
    rim = np.concatenate([colors[0], colors[-1], colors[:, 0], colors[:, -1]])
    ground = np.median(rim, axis=0)
    if (np.abs(rim - ground).max(axis=1) < GROUND_RANGE).mean() < MOSTLY:
        return None
    distances = np.abs(colors - ground).max(axis=2)
    is_ink = distances > INK_DISTANCE
    if is_ink.mean() < LEAST_INK:
        return None
    ink = np.median(colors[distances >= np.percentile(distances[is_ink], 60)], axis=0)
    contrast = ink - ground
    shares = np.clip((colors - ground) @ contrast / (contrast @ contrast), 0, 1)
    misses = np.linalg.norm(colors - (ground + shares[..., None] * contrast), axis=2)
    if (misses > INK_DISTANCE).mean() > 1 - MOSTLY_TWO_COLORS:
        return None
    pieces, _ = cv2.connectedComponents((shares > HALF).astype(np.uint8), connectivity=8)
    if pieces - 1 > MOST_PIECES:
        return None
    return Segment(np.asarray(shares, np.float32), (0.0, 0.0), scale, 1.0)
