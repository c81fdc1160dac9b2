"""Finds the subject of a shop picture: what differs from a border of one colour."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

SIDE_PX = 256
"""Of the longer side, for the search."""
BORDER_PX = 4
BORDER_DISTANCE = 10.0
"""Lab distance up to which a pixel of the border has the border's colour."""
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
        x_min, y_min, x_max, y_max in pixels; None where the border is not of one colour, or
        nothing stands out from it.
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
    _, _, stats, _ = cv2.connectedComponentsWithStats(differs)
    parts = stats[1:]
    if not len(parts) or parts[:, cv2.CC_STAT_AREA].max() < MIN_AREA_SHARE * differs.size:
        return None
    parts = parts[parts[:, cv2.CC_STAT_AREA] >= PART_SHARE * parts[:, cv2.CC_STAT_AREA].max()]
    x_min, y_min = parts[:, cv2.CC_STAT_LEFT].min(), parts[:, cv2.CC_STAT_TOP].min()
    x_max = (parts[:, cv2.CC_STAT_LEFT] + parts[:, cv2.CC_STAT_WIDTH]).max()
    y_max = (parts[:, cv2.CC_STAT_TOP] + parts[:, cv2.CC_STAT_HEIGHT]).max()
    return (
        int(x_min / scale),
        int(y_min / scale),
        min(width, int(np.ceil(x_max / scale))),
        min(height, int(np.ceil(y_max / scale))),
    )
