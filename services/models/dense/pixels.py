"""Pixel operations on the training pictures of the dense descriptor."""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
"""RGB or RGBA, [height, width, 3 or 4]."""
Color = tuple[int, int, int]

SIDE_PX = 288
"""Side of the teacher's input, in pixels."""
WEBP = (cv2.IMWRITE_WEBP_QUALITY, 92)
"""Encoder settings of drawings."""
MIN_CROP_PX = 8
"""Minimum side of a crop, in pixels."""
MIN_CONTRAST = 70
"""Minimum difference between the mean intensities of contrasting colors, of 255."""


def crop(photo: Picture, box: tuple[float, float, float, float]) -> Picture:
    """Crop a box, given as x_min, y_min, x_max, y_max from 0 to 1."""
    height, width = photo.shape[:2]
    x_min, y_min, x_max, y_max = box
    top, left = round(y_min * height), round(x_min * width)
    return photo[
        top : max(round(y_max * height), top + MIN_CROP_PX),
        left : max(round(x_max * width), left + MIN_CROP_PX),
    ]


def decode(content: bytes) -> Picture:
    """Decode a picture in RGB, or in RGBA if it has an alpha channel.

    Raises:
        ValueError: The content is not a picture.
    """
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ValueError("not a picture")
    code = cv2.COLOR_BGRA2RGBA if has_alpha(decoded) else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(decoded, code), np.uint8)


def encode(picture: Picture) -> bytes:
    """Encode a picture as WebP."""
    code = cv2.COLOR_RGBA2BGRA if has_alpha(picture) else cv2.COLOR_RGB2BGR
    return bytes(cv2.imencode(".webp", cv2.cvtColor(picture, code), WEBP)[1])


def has_alpha(picture: npt.NDArray[Any]) -> bool:
    return bool(picture.shape[2] == 4)


def with_alpha(picture: Picture) -> Picture:
    """Return RGBA, opaque if the picture has no alpha channel."""
    if has_alpha(picture):
        return picture
    return np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])


def on_ground(picture: Picture, color: Color = (255, 255, 255), margin: float = 0.1) -> Picture:
    """Blend RGBA over a plain background with a margin, given as a share of the long side.

    RGB is returned unchanged.
    """
    if not has_alpha(picture):
        return picture
    height, width = picture.shape[:2]
    border = round(margin * max(height, width))
    ground = np.full((height + 2 * border, width + 2 * border, 3), color, np.float32)
    inner = ground[border : border + height, border : border + width]
    opacity = picture[..., 3:].astype(np.float32) / 255
    inner[:] = picture[..., :3] * opacity + inner * (1 - opacity)
    return ground.astype(np.uint8)


def painted(glyph: Picture, color: Color) -> Picture:
    """Return RGBA of a single color with the alpha channel of the glyph."""
    result = glyph.copy()
    result[..., :3] = color
    return result


def over(ground: Picture, picture: npt.NDArray[Any], x: int, y: int) -> None:
    """Blend RGBA over a background at a position, in place, clipped at the edges."""
    height, width = ground.shape[:2]
    top, left = max(0, -y), max(0, -x)
    part = picture[
        top : max(top, min(picture.shape[0], height - y)),
        left : max(left, min(picture.shape[1], width - x)),
    ]
    if not part.size:
        return
    rows = slice(max(0, y), max(0, y) + part.shape[0])
    columns = slice(max(0, x), max(0, x) + part.shape[1])
    opacity = part[..., 3:].astype(np.float32) / 255
    ground[rows, columns] = part[..., :3] * opacity + ground[rows, columns] * (1 - opacity)


def squash(picture: Picture) -> Picture:
    """Resize to SIDE_PX × SIDE_PX, the input size of the teacher and of stored elements."""
    is_larger = min(picture.shape[:2]) > SIDE_PX
    interpolation = cv2.INTER_AREA if is_larger else cv2.INTER_LINEAR
    return np.asarray(
        cv2.resize(picture, (SIDE_PX, SIDE_PX), interpolation=interpolation), np.uint8
    )


def random_color(rng: random.Random) -> Color:
    """Return a color that is often nearly black or nearly white."""
    kind = rng.random()
    if kind < 0.15:
        return (rng.randint(0, 30),) * 3
    if kind < 0.3:
        return (rng.randint(225, 255),) * 3
    return rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255)


def contrasting(other: tuple[float, ...], rng: random.Random) -> Color:
    """Return a random color that contrasts with another; black or white if 20 attempts fail."""
    for _ in range(20):
        color = random_color(rng)
        if abs(float(np.mean(color)) - float(np.mean(other))) > MIN_CONTRAST:
            return color
    return (0, 0, 0) if np.mean(other) > 127 else (255, 255, 255)
