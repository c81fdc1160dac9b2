"""Finds segments of uniform color: bare logos, letters and other glyphs.

A photo has few regions of one color with a sharp edge all around. Colors that many flat pixels near
edges share are segmented one after the other. Neighboring connected components of a color form one
segment, since many glyphs have several components.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.embedding.elements.flat_colors import (
    flat_colors,
    flat_pixels,
    pixels_near_edges,
)
from imagesearch_services.embedding.elements.masks import (
    MASK_SIDE_PX,
    Pixels,
    Segment,
    resized,
    soft_mask,
)

Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

SIDE_PX = 560
"""Maximum long side of a picture when it is segmented, in pixels."""
MAX_SEGMENTS = 24
"""Maximum segments of a picture; the best are kept."""

TOLERANCE = np.array((16, 9, 9))
"""Maximum distance of a pixel from a segment's color, by channel of CIE Lab as OpenCV scales it to
bytes."""
SHARP_TOLERANCE_FACTOR = 2
"""Minimum difference of the color beyond a sharp edge, as a multiple of `TOLERANCE`."""
GAPS_PX = (0, 5, 12, 24)
"""Maximum distances between the components of a segment, in pixels; each of them is tried."""
MIN_COMPONENT_PX = 12
"""Minimum area of a component, in pixels."""
MIN_SIDE_PX = 32
"""Minimum long side of a segment, and minimum short side of a picture, in pixels."""
AREA_SHARES = (0.0015, 0.4)
"""Minimum and maximum area of a segment, as a share of the picture."""
MIN_QUALITY = 0.1
"""Minimum quality of a segment."""
BACKGROUND_SHARE = 0.9
"""Share of the picture's sides; a component that exceeds it in both directions is background."""
PADDING = 0.08
"""Padding around a segment's mask, as a share of the segment's long side."""


@dataclass(frozen=True, slots=True)
class _Components:
    """Connected components of one color."""

    labels: npt.NDArray[np.int32]
    """Label of each pixel, 0 outside the components, [height, width]."""
    boxes: npt.NDArray[np.int32]
    """Left, top, width, height, area, by label, [labels, 5]."""
    flat: Ints
    """Number of flat pixels, by label."""
    rim: Ints
    """Number of pixels in the rim, a narrow band around the component, by label."""
    sharp_rim: Ints
    """Number of pixels in the rim whose color differs clearly, by label."""
    kept: Bools
    """Whether a component is large enough and not background, by label."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Neighboring components that form a segment."""

    quality: float
    box: tuple[int, ...]
    """Left, top, right, bottom, in pixels of the reduced picture."""
    components: _Components
    members: Ints
    """Labels of the group's components."""

    def mask(self) -> Pixels:
        """Return the group's mask over its box, uint8: 1 in the group, 0 elsewhere."""
        x_min, y_min, x_max, y_max = self.box
        is_member = np.zeros(len(self.components.kept), np.uint8)
        is_member[self.members] = 1
        return is_member[self.components.labels[y_min:y_max, x_min:x_max]]


def find_segments(rgb: Pixels) -> list[Segment]:
    """Find at most `MAX_SEGMENTS` segments of uniform color, best first.

    Args:
        rgb: uint8, [height, width, 3].
    """
    factor = min(1.0, SIDE_PX / max(rgb.shape[:2]))
    reduced = resized(rgb, factor) if factor < 1 else rgb
    if min(reduced.shape[:2]) < MIN_SIDE_PX:
        return []
    lab = np.asarray(cv2.cvtColor(reduced, cv2.COLOR_RGB2LAB), np.uint8)
    flat = flat_pixels(lab)
    groups = [
        group
        for color in flat_colors(lab, flat & pixels_near_edges(lab))
        for group in _groups(_components(lab, flat, color))
    ]
    groups.sort(key=lambda group: -group.quality)
    segments = (_segment(rgb, group, factor) for group in groups[:MAX_SEGMENTS])
    return [segment for segment in segments if segment is not None]


def _components(lab: Pixels, flat: Bools, color: Doubles) -> _Components:
    """Find the connected components of a color and measure them."""
    similar, roughly_similar = (
        cv2.inRange(
            lab,
            np.clip(color - factor * TOLERANCE, 0, 255),
            np.clip(color + factor * TOLERANCE, 0, 255),
        )
        for factor in (1, SHARP_TOLERANCE_FACTOR)
    )
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(similar, connectivity=8)
    height, width = labels.shape
    is_background = (boxes[:, 2] > BACKGROUND_SHARE * width) & (
        boxes[:, 3] > BACKGROUND_SHARE * height
    )
    kept = (boxes[:, 4] >= MIN_COMPONENT_PX) & ~is_background
    kept[0] = False
    # The rim is represented by indices, since it has far fewer pixels than the picture.
    dilated = cv2.dilate(labels.astype(np.float32), np.ones((7, 7), np.uint8))
    rim = np.flatnonzero((dilated > 0) & (cv2.dilate(similar, np.ones((5, 5), np.uint8)) == 0))
    rim_labels = dilated.ravel()[rim].astype(np.int64)
    is_sharp = roughly_similar.ravel()[rim] == 0
    return _Components(
        np.asarray(labels, np.int32),
        np.asarray(boxes, np.int32),
        np.bincount(labels.ravel()[np.flatnonzero((similar > 0) & flat)], minlength=count),
        np.bincount(rim_labels, minlength=count),
        np.bincount(rim_labels[is_sharp], minlength=count),
        np.asarray(kept, bool),
    )


def _groups(components: _Components) -> Iterator[_Group]:
    """Yield the groups of components that are at most a gap apart, for each of `GAPS_PX`."""
    # Groups are found at half resolution; any pixel of a component identifies its group.
    halved = components.labels[::2, ::2], components.labels[1::2, 1::2]
    height, width = halved[1].shape
    outside = np.ones((height, width), np.uint8)
    pixel_of_label = np.full(len(components.kept), -1, np.int64)
    for labels in halved:
        pixels = np.flatnonzero(components.kept[labels[:height, :width]])
        rows, columns = np.divmod(pixels, width)
        outside[rows, columns] = 0
        pixel_of_label[labels[rows, columns]] = pixels
    distances = cv2.distanceTransform(outside, cv2.DIST_L2, 3)
    kept = np.flatnonzero(components.kept)
    kept = kept[pixel_of_label[kept] >= 0]
    seen: set[tuple[int, ...]] = set()
    for gap in GAPS_PX:
        group_of_label: Ints = kept
        if gap:
            _, joined = cv2.connectedComponents(
                (distances <= gap / 2).astype(np.uint8), connectivity=8
            )
            group_of_label = np.asarray(joined.ravel()[pixel_of_label[kept]], np.int64)
        for box_and_area, quality, members in _measured_groups(components, kept, group_of_label):
            if box_and_area not in seen:
                seen.add(box_and_area)
                yield _Group(quality, box_and_area[:4], components, members)


def _measured_groups(
    components: _Components, kept: Ints, groups: Ints
) -> Iterator[tuple[tuple[int, ...], float, Ints]]:
    """Measure groups of components; skip groups of the wrong size or of low quality.

    Args:
        components: components of one color.
        kept: labels of the components to group.
        groups: group of each of these components.

    Yields:
        Box and area (left, top, right, bottom, area), quality, and labels of each group.
    """
    if not len(kept):
        return
    order = np.argsort(groups, kind="stable")
    kept, groups = kept[order], groups[order]
    starts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))
    left, top, width, height, areas = components.boxes[kept].T
    edges = (
        np.minimum.reduceat(left, starts),
        np.minimum.reduceat(top, starts),
        np.maximum.reduceat(left + width, starts),
        np.maximum.reduceat(top + height, starts),
    )
    area = np.add.reduceat(areas, starts)
    flat, rim, sharp_rim = (
        np.add.reduceat(counts[kept], starts)
        for counts in (components.flat, components.rim, components.sharp_rim)
    )
    qualities = flat / area * sharp_rim / np.maximum(rim, 1)
    min_area, max_area = (share * components.labels.size for share in AREA_SHARES)
    sides = np.maximum(edges[2] - edges[0], edges[3] - edges[1])
    has_valid_size = (sides >= MIN_SIDE_PX) & (area >= min_area) & (area <= max_area)
    ends = np.append(starts[1:], len(kept))
    for row in np.flatnonzero(has_valid_size & (qualities > MIN_QUALITY)):
        box_and_area = tuple(int(column[row]) for column in (*edges, area))
        yield box_and_area, float(qualities[row]), kept[starts[row] : ends[row]]


def _segment(rgb: Pixels, group: _Group, factor: float) -> Segment | None:
    """Compute the soft mask of a group in the full-size picture; None if the mask is empty.

    Args:
        rgb: the picture.
        group: group that was found in the reduced picture.
        factor: scale factor of the reduced picture, at most 1.
    """
    x_min, y_min, x_max, y_max = group.box
    padding = int(PADDING * max(x_max - x_min, y_max - y_min)) + 3
    mask = np.pad(group.mask(), padding)
    left, top = round((x_min - padding) / factor), round((y_min - padding) / factor)
    right, bottom = round((x_max + padding) / factor), round((y_max + padding) / factor)
    crop = _padded_crop(rgb, left, top, right, bottom)
    scale = MASK_SIDE_PX / max(crop.shape[:2])
    crop = resized(crop, scale)
    mask = np.asarray(
        cv2.resize(mask, crop.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8
    )
    if not mask.any():
        return None
    return Segment(soft_mask(crop, mask), (float(left), float(top)), scale, group.quality)


def _padded_crop(rgb: Pixels, left: int, top: int, right: int, bottom: int) -> Pixels:
    """Crop a box that may exceed the picture, whose border is then replicated."""
    height, width = rgb.shape[:2]
    crop = rgb[max(0, top) : min(height, bottom), max(0, left) : min(width, right)]
    padded = cv2.copyMakeBorder(
        crop,
        max(0, -top),
        max(0, bottom - height),
        max(0, -left),
        max(0, right - width),
        cv2.BORDER_REPLICATE,
    )
    return np.asarray(padded, np.uint8)
