"""Prepares the parser's second pass over the enlarged halves of a body, and merges its maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Shares: TypeAlias = tuple[float, float, float, float]
"""A box: x_min, y_min, x_max, y_max as shares of a picture's sides, 0 to 1."""
Floats = npt.NDArray[np.float32]

MARGIN = 0.06
"""Margin around a body, as a share of the long side of its box."""
HALF = 0.58
"""Height of each half, as a share of the body's height. The halves overlap so that garments at the
waist are whole in one of them."""
BACKGROUND, PERSON, CLASSES = 0, 1, 9
"""Indices of the parser's maps for background and person (skin and hair), and the number of the
parser's mutually exclusive classes."""
MAX_BACKGROUND_PROBABILITY = 0.5
"""Probability of background below which a cell belongs to the body."""
MIN_PERSON_SHARE = 0.01
"""Minimum share of person cells in a picture for a second pass."""
LONG_SIDE_CELLS = 128
"""Long side of merged maps, cells: about the resolution of the halves."""
WEIGHT = 0.5
"""Weight of a half relative to the first pass, which has more context."""


def split_body(body: Shares, margin: float = MARGIN) -> tuple[Shares, Shares]:
    """Split a body into an upper and a lower half that overlap.

    Args:
        body: bounding box of the body.
        margin: margin around the body, as a share of the long side of its box.

    Returns:
        The upper and the lower half, clipped to the picture.
    """
    margin_share = margin * max(body[2] - body[0], body[3] - body[1])
    x_min, y_min = max(0.0, body[0] - margin_share), max(0.0, body[1] - margin_share)
    x_max, y_max = min(1.0, body[2] + margin_share), min(1.0, body[3] + margin_share)
    height = HALF * (y_max - y_min)
    return (x_min, y_min, x_max, y_min + height), (x_min, y_max - height, x_max, y_max)


def body_halves(maps: Floats) -> Sequence[Shares]:
    """Return the halves of the bodies in a picture, for a second pass.

    Args:
        maps: the parser's maps, cropped to the picture, float32 [maps, height, width].

    Returns:
        The upper and the lower half; empty if the parser finds no person.
    """
    if (maps[:CLASSES].argmax(axis=0) == PERSON).mean() < MIN_PERSON_SHARE:
        return ()
    body = maps[BACKGROUND] < MAX_BACKGROUND_PROBABILITY
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    height, width = body.shape
    return split_body(
        (
            float(columns[0] / width),
            float(rows[0] / height),
            float((columns[-1] + 1) / width),
            float((rows[-1] + 1) / height),
        )
    )


def merge_maps(whole: Floats, parts: Sequence[tuple[Shares, Floats]]) -> Floats:
    """Merge the maps of a picture with the maps of its parts.

    Args:
        whole: maps of the picture without the letterbox, float32 [maps, height, width].
        parts: the position of each part in the picture, and its maps without the letterbox.

    Returns:
        The weighted mean of the class probabilities, in smaller cells; `whole` itself if there are
        no parts. The saliency map is that of `whole`, since saliency depends on the whole picture.
    """
    if not parts:
        return whole
    scale = LONG_SIDE_CELLS / max(whole.shape[1:])
    height, width = (max(1, round(side * scale)) for side in whole.shape[1:])
    total = _resized(whole, width, height)
    weights = np.ones((height, width), np.float32)
    for (x_min, y_min, x_max, y_max), maps in parts:
        left, top = min(width - 1, round(x_min * width)), min(height - 1, round(y_min * height))
        right = max(left + 1, round(x_max * width))
        bottom = max(top + 1, round(y_max * height))
        window = (slice(top, bottom), slice(left, right))
        rows, columns = weights[window].shape
        total[:CLASSES, *window] += WEIGHT * _resized(maps[:CLASSES], columns, rows)
        weights[window] += WEIGHT
    total[:CLASSES] /= weights
    return total


def _resized(maps: Floats, width: int, height: int) -> Floats:
    return np.stack(
        [cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in maps]
    )
