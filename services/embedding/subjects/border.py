"""Finds the subject of a shop picture: what differs from a border of one color."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

SIDE_PX = 256
"""Of the longer side, for the search."""
BORDER_PX = 4
BORDER_DISTANCE = 10.0
"""Lab distance up to which a pixel of the border has the border's color."""
BORDER_SHARE = 0.75
SUBJECT_DISTANCE = 10.8
"""Lab distance from which a pixel is not background."""
PART_SHARE = 0.1
"""Parts of at least this share of the largest one belong to the subject."""
MIN_AREA_SHARE = 0.01


def subject_on_plain_background(
    picture: npt.NDArray[np.uint8],
) -> tuple[int, int, int, int] | None:
    """Finds the box of everything that stands out from a plain background.

    Args:
        picture: RGB, [height, width, 3].

    Returns:
        x_min, y_min, x_max, y_max in pixels; None where the border is not of one color, or
        nothing stands out from it.
    """
    mask = stands_out(picture)
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


def stands_out(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_] | None:
    """Finds the pixels that stand out from a plain background.

    Args:
        picture: RGB, [height, width, 3].

    Returns:
        A mask of the whole picture with a long side of 256; None where the border is not of one
        color, or nothing stands out from it.
    """
    height, width = picture.shape[:2]
    scale = SIDE_PX / max(height, width)
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    frame = np.concatenate(
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
    background = np.median(frame, axis=0)
    if (np.linalg.norm(frame - background, axis=1) < BORDER_DISTANCE).mean() < BORDER_SHARE:
        return None
    differs = (np.linalg.norm(lab - background, axis=2) > SUBJECT_DISTANCE).astype(np.uint8)
    differs = cv2.morphologyEx(differs, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, parts, stats, _ = cv2.connectedComponentsWithStats(differs)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas) or areas.max() < MIN_AREA_SHARE * differs.size:
        return None
    kept = 1 + np.flatnonzero(areas >= PART_SHARE * areas.max())
    mask: npt.NDArray[np.bool_] = np.isin(parts, kept)
    return mask
