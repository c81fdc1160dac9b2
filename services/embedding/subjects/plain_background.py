"""Segments pictures with a plain background, such as shop pictures: a border of uniform color."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

SIDE_PX = 256
"""Long side at which the picture is segmented, in pixels."""
BORDER_PX = 4
"""Width of the border, in pixels of the reduced picture."""
BORDER_DISTANCE = 10.0
"""CIE Lab distance from the median border color below which a pixel has the border's color."""
BORDER_SHARE = 0.75
"""Minimum share of border pixels with the border's color on a plain background."""
FOREGROUND_DISTANCE = 10.8
"""CIE Lab distance from the median border color above which a pixel is foreground."""
COMPONENT_SHARE = 0.1
"""Minimum area of a connected component of the foreground, as a share of the largest component's
area."""
MIN_AREA_SHARE = 0.01
"""Minimum area of the largest component, as a share of the picture."""


def foreground_box(picture: npt.NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
    """Return the bounding box of the foreground on a plain background.

    Args:
        picture: uint8 RGB, [height, width, 3].

    Returns:
        x_min, y_min, x_max, y_max in pixels, maxima exclusive; None if the background is not plain
        or there is no foreground.
    """
    mask = foreground_mask(picture)
    if mask is None:
        return None
    height, width = picture.shape[:2]
    scale = SIDE_PX / max(height, width)
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return (
        int(columns[0] / scale),
        int(rows[0] / scale),
        min(width, int(np.ceil((columns[-1] + 1) / scale))),
        min(height, int(np.ceil((rows[-1] + 1) / scale))),
    )


def foreground_mask(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_] | None:
    """Return the mask of the foreground on a plain background.

    Args:
        picture: uint8 RGB, [height, width, 3].

    Returns:
        A mask of the whole picture whose long side is `SIDE_PX`, [rows, columns]; None if the
        background is not plain or there is no foreground.
    """
    height, width = picture.shape[:2]
    scale = SIDE_PX / max(height, width)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    reduced = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(reduced.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    border = np.concatenate(
        [
            edge.reshape(-1, 3)
            for edge in (
                lab[:BORDER_PX],
                lab[-BORDER_PX:],
                lab[:, :BORDER_PX],
                lab[:, -BORDER_PX:],
            )
        ]
    )
    background = np.median(border, axis=0)
    if (np.linalg.norm(border - background, axis=1) < BORDER_DISTANCE).mean() < BORDER_SHARE:
        return None
    differs = (np.linalg.norm(lab - background, axis=2) > FOREGROUND_DISTANCE).astype(np.uint8)
    differs = cv2.morphologyEx(differs, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, components, stats, _ = cv2.connectedComponentsWithStats(differs)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas) or areas.max() < MIN_AREA_SHARE * differs.size:
        return None
    kept = 1 + np.flatnonzero(areas >= COMPONENT_SHARE * areas.max())
    mask: npt.NDArray[np.bool_] = np.isin(components, kept)
    return mask
