"""A second, closer look at somebody: the upper and the lower half of the body, each large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

Shares: TypeAlias = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max as shares of a picture's sides."""
Floats = npt.NDArray[np.float32]

MARGIN = 0.06
"""Around a body, of the longer side of its box."""
HALF = 0.58
"""Of a body's height, for each half: what lies at the waist is whole in one of them."""
BACKGROUND, PERSON, CLASSES = 0, 1, 9
"""Of the parser's maps: what is nobody, what is skin and hair, and how many exclude each other."""
MIN_PERSON_SHARE = 0.01
"""Of the picture; with less there is nobody to look at more closely."""
LONG_SIDE_CELLS = 128
"""Of merged maps: about as fine as the halves are."""
WEIGHT = 0.5
"""Of a half beside the whole, which shows more of what is around."""


def halves(body: Shares, margin: float = MARGIN) -> tuple[Shares, Shares]:
    """Cut a body in two.

    Args:
        body: its box.
        margin: around it, as a share of the longer of its sides.

    Returns:
        The upper and the lower half, clipped to the picture.
    """
    around = margin * max(body[2] - body[0], body[3] - body[1])
    x_min, y_min = max(0.0, body[0] - around), max(0.0, body[1] - around)
    x_max, y_max = min(1.0, body[2] + around), min(1.0, body[3] + around)
    height = HALF * (y_max - y_min)
    return (x_min, y_min, x_max, y_min + height), (x_min, y_max - height, x_max, y_max)


def worth_a_look(maps: Floats) -> Sequence[Shares]:
    """Say what to look at again.

    Args:
        maps: of the parser, cut to the picture: [maps, height, width].

    Returns:
        The halves of whoever is there; nothing where nobody is.
    """
    if (maps[:CLASSES].argmax(axis=0) == PERSON).mean() < MIN_PERSON_SHARE:
        return ()
    body = maps[BACKGROUND] < 1 / 2
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    height, width = body.shape
    return halves(
        (
            float(columns[0] / width),
            float(rows[0] / height),
            float((columns[-1] + 1) / width),
            float((rows[-1] + 1) / height),
        )
    )


def merged(whole: Floats, parts: Sequence[tuple[Shares, Floats]]) -> Floats:
    """Join what the parser says of a picture with what it says of parts of it.

    Args:
        whole: maps of the picture, [maps, height, width], without a frame.
        parts: where each lies in the picture, and its maps, likewise.

    Returns:
        The weighted mean, in finer cells; as it was without parts. Only the classes are joined,
        since what draws the eye depends on all that is there.
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
        inner = (slice(top, bottom), slice(left, right))
        rows, columns = weights[inner].shape
        total[:CLASSES, *inner] += WEIGHT * _resized(maps[:CLASSES], columns, rows)
        weights[inner] += WEIGHT
    total[:CLASSES] /= weights
    return total


def _resized(maps: Floats, width: int, height: int) -> Floats:
    return np.stack(
        [cv2.resize(map_, (width, height), interpolation=cv2.INTER_LINEAR) for map_ in maps]
    )
