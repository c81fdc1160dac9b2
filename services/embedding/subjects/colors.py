"""Names the colors of a masked part of a picture.

Pixels are compared with prototypes of twelve basic colors in CIE Lab and each votes for the name
of its nearest; the share of a color is its part of the votes. Colors of the same name are one
color, shown by the median of its pixels.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import Color

LONG_SIDE_PX = 192
"""Enough for shares; edges that mix two colors are thin at this size."""
MAX_COLORS = 3
MIN_SHARE = 0.12
MIN_PIXELS = 24
LIGHTNESS_WEIGHT = 0.6
"""Folds and shadows change lightness more than they change hue."""
CHROMA_OF_GREYS = 9.0
"""Lab chroma up to which a pixel may be black, grey or white without penalty."""
CHROMA_OF_COLORS = 5.0
"""Lab chroma under which a pixel can hardly have a hue."""

LIGHT_SIDE_PX = 64
LIGHT_SHARE = 0.05
"""Of a picture, its brightest pixels: what is white there, if anything is."""
LIGHT_STRENGTH = 0.5
"""Eyes adapt to the light by about as much."""
LIGHT_CHROMA = (16.0, 30.0)
"""Lab chroma of the brightest pixels up to which they are trusted, and from which not at all."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Gains = npt.NDArray[np.float32]
"""Factors of red, green and blue, [3]."""

PROTOTYPES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((18, 18, 20), (55, 54, 55)),
    "grey": ((108, 108, 109), (150, 150, 150)),
    "white": ((208, 208, 208), (245, 245, 243)),
    "red": ((200, 25, 35), (150, 25, 35), (105, 20, 35), (190, 70, 70), (170, 40, 45)),
    "orange": ((240, 125, 30), (225, 140, 70), (185, 125, 75)),
    "yellow": ((248, 215, 50), (205, 165, 45), (240, 225, 130), (150, 115, 45)),
    "green": (
        (50, 140, 60), (120, 190, 90), (25, 75, 45), (130, 150, 40), (75, 80, 45), (175, 205, 155),
        (60, 170, 160),
    ),
    "blue": (
        (35, 85, 190), (28, 35, 75), (40, 50, 80), (85, 110, 150), (150, 185, 220), (40, 150, 200),
        (100, 110, 126), (150, 163, 178), (62, 70, 84), (18, 22, 44), (120, 150, 175),
    ),
    "purple": (
        (120, 60, 150), (175, 150, 205), (75, 50, 90), (150, 40, 110), (120, 85, 125),
        (205, 195, 230), (70, 60, 85),
    ),
    "pink": (
        (245, 165, 185), (225, 60, 130), (230, 190, 195), (205, 130, 130), (170, 55, 90),
        (200, 80, 120),
    ),
    "brown": (
        (110, 70, 42), (70, 46, 34), (150, 100, 60), (88, 70, 62), (125, 95, 80), (100, 80, 55),
    ),
    "beige": (
        (222, 202, 170), (196, 174, 142), (225, 215, 195), (172, 155, 130), (172, 168, 152),
        (200, 190, 175),
    ),
}  # fmt: skip
ACHROMATIC = ("black", "grey", "white")
TABLE_BITS = 5
"""Of each channel, by which names are looked up: a step of eight levels is hardly seen."""


def light_of(picture: npt.NDArray[np.uint8]) -> Gains:
    """Estimates by what a picture's light has to be multiplied to be white.

    Half of what the brightest pixels suggest, and nothing where they are so colorful that they
    are rather things of that color. Chosen on `color_training_labels.json`.

    Args:
        picture: All of it, RGB, [height, width, 3].

    Returns:
        Factors of red, green and blue.
    """
    size = tuple(max(1, round(side * LIGHT_SIDE_PX / max(picture.shape[:2])))
                 for side in picture.shape[1::-1])  # fmt: skip
    pixels = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).reshape(-1, 3)
    pixels = pixels.astype(np.float32)
    luma = pixels @ LUMA
    light = pixels[luma >= np.quantile(luma, 1 - LIGHT_SHARE)].mean(axis=0)
    _, a, b = _lab(np.rint(light)[None].astype(np.uint8))[0]
    least, most = LIGHT_CHROMA
    trust = float(np.clip((most - np.hypot(a, b)) / (most - least), 0, 1))
    gains: Gains = (light @ LUMA / np.maximum(light, 1)) ** (LIGHT_STRENGTH * trust)
    return gains


def name_colors(
    picture: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], light: Gains | None = None
) -> list[Color]:
    """Names up to three colors, the largest first.

    Args:
        picture: RGB, [height, width, 3].
        mask: What belongs to the subject, [height, width].
        light: Of the whole picture that this is of, see `light_of`; None: white.

    Returns:
        Colors with a share of at least 12 %; none where the mask is all but empty.
    """
    scale = min(1.0, LONG_SIDE_PX / max(picture.shape[:2]))
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    # The rim mixes with what is behind it.
    core = cv2.erode(inside, np.ones((3, 3), np.uint8))
    if core.sum() >= max(MIN_PIXELS, 0.3 * inside.sum()):
        inside = core
    pixels = np.asarray(small, np.uint8)[inside > 0]
    if len(pixels) < MIN_PIXELS:
        return []
    seen = pixels
    if light is not None:
        seen = np.clip(pixels * light, 0, 255).astype(np.uint8)
    names = _names_of(seen)
    found = []
    for index, name in enumerate(PROTOTYPES):
        own = pixels[names == index]
        if len(own) >= MIN_SHARE * len(pixels):
            red, green, blue = np.median(own, axis=0).astype(int)
            found.append(Color(name, f"#{red:02x}{green:02x}{blue:02x}", len(own) / len(pixels)))
    return sorted(found, key=lambda color: -color.share)[:MAX_COLORS]


def _names_of(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Index into PROTOTYPES of the nearest color of each pixel, RGB [N, 3] → [N]."""
    red, green, blue = (pixels >> (8 - TABLE_BITS)).astype(np.intp).T
    names: npt.NDArray[np.intp] = _table()[(red << 2 * TABLE_BITS) | (green << TABLE_BITS) | blue]
    return names


@functools.cache
def _table() -> npt.NDArray[np.intp]:
    """Names of all colors, by the high bits of red, green and blue: 0.2 s, once."""
    levels = (np.arange(1 << TABLE_BITS) << (8 - TABLE_BITS)) + (1 << (7 - TABLE_BITS))
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    return _nearest_names(_lab(grid.reshape(-1, 3).astype(np.uint8)))


def _lab(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Converts RGB [N, 3] to CIE Lab [N, 3]: lightness 0 … 100, a and b about -100 … 100."""
    lab = cv2.cvtColor(pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    return np.asarray(lab, dtype=np.float32)


def _nearest_names(lab: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Index into PROTOTYPES of the nearest color of each pixel, [N]."""
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    weights = np.array([LIGHTNESS_WEIGHT, 1.0, 1.0], np.float32)
    distances = []
    for name, samples in PROTOTYPES.items():
        prototypes = _lab(np.array(samples, np.uint8))
        apart = ((lab[:, None] - prototypes[None]) * weights) ** 2
        distance = apart.sum(axis=2).min(axis=1)
        if name in ACHROMATIC:
            distance += 4 * np.clip(chroma - CHROMA_OF_GREYS, 0, 20) ** 2
        else:
            distance += 25 * np.clip(CHROMA_OF_COLORS - chroma, 0, None) ** 2
        distances.append(distance)
    nearest: npt.NDArray[np.intp] = np.argmin(np.stack(distances), axis=0)
    return nearest
