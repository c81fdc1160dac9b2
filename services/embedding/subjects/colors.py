"""Names the colors of a subject.

Each pixel votes for the nearest of twelve basic colors, by the CIE Lab distance to prototypes of
the color. The share of a color is its share of the votes; its `hex` is the median of its pixels.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.common.types import Color

LONG_SIDE_PX = 192
"""Maximum long side at which pixels vote, in pixels. It suffices to measure shares; edges, whose
pixels mix two colors, are thin at this size."""
MAX_COLORS = 3
"""Maximum colors per subject."""
MIN_SHARE = 0.12
"""Minimum share of a color."""
MIN_PIXELS = 24
"""Minimum pixels of a mask; a smaller mask has no colors."""
MIN_CORE_SHARE = 0.3
"""Minimum share of a mask that must remain after erosion; otherwise the mask is not eroded."""
LIGHTNESS_WEIGHT = 0.6
"""Weight of the difference in lightness, which varies more with folds and shadows than the hue."""
MAX_ACHROMATIC_CHROMA = 9.0
"""Maximum CIE Lab chroma of a pixel that is black, grey or white without a penalty."""
MIN_CHROMATIC_CHROMA = 5.0
"""Minimum CIE Lab chroma of a pixel that has a color with a hue without a penalty."""

ILLUMINANT_SIDE_PX = 64
"""Long side at which the illuminant is estimated, in pixels."""
ILLUMINANT_SHARE = 0.05
"""Share of a picture's pixels, the brightest, from which the illuminant is estimated; they show
white objects if there are any."""
ADAPTATION = 0.5
"""Degree of chromatic adaptation, 0 to 1, about that of human vision."""
ILLUMINANT_CHROMA = (16.0, 30.0)
"""CIE Lab chroma of the brightest pixels up to which they are trusted fully, and above which they
are ignored."""
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue (ITU-R BT.601)."""

Gains = npt.NDArray[np.float32]
"""Factors for red, green and blue, float32 [3]."""

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
"""RGB prototypes of each basic color."""
ACHROMATIC = ("black", "grey", "white")
"""Colors without a hue."""
TABLE_BITS = 5
"""Bits of each channel that index the lookup table; a step of eight levels is hardly visible."""


def illuminant_gains(picture: npt.NDArray[np.uint8]) -> Gains:
    """Estimate the factors that compensate for the color of a picture's illuminant.

    The factors make the brightest pixels half as colorful (`ADAPTATION`). The more colorful these
    pixels are, the closer the factors are to 1, since they may be colored objects. The parameters
    were chosen on `services/models/product/color_training_labels.json`.

    Args:
        picture: the whole picture, uint8 RGB, [height, width, 3].
    """
    long_side = max(picture.shape[:2])
    height, width = (
        max(1, round(side * ILLUMINANT_SIDE_PX / long_side)) for side in picture.shape[:2]
    )
    size = (width, height)
    pixels = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).reshape(-1, 3)
    pixels = pixels.astype(np.float32)
    luma = pixels @ LUMA
    illuminant = pixels[luma >= np.quantile(luma, 1 - ILLUMINANT_SHARE)].mean(axis=0)
    _, a, b = _lab(np.rint(illuminant)[None].astype(np.uint8))[0]
    trusted_chroma, ignored_chroma = ILLUMINANT_CHROMA
    trust = (ignored_chroma - np.hypot(a, b)) / (ignored_chroma - trusted_chroma)
    exponent = ADAPTATION * float(np.clip(trust, 0, 1))
    gains: Gains = (illuminant @ LUMA / np.maximum(illuminant, 1)) ** exponent
    return gains


def name_colors(
    picture: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], gains: Gains | None = None
) -> list[Color]:
    """Name the colors of a masked part of a picture.

    Args:
        picture: uint8 RGB, [height, width, 3].
        mask: the pixels of the subject, [height, width].
        gains: factors that compensate for the illuminant of the whole picture, see
            `illuminant_gains`; None: the illuminant is white.

    Returns:
        At most `MAX_COLORS` colors with a share of at least `MIN_SHARE`, largest first; empty if
        the mask has fewer than `MIN_PIXELS` pixels at the reduced size.
    """
    scale = min(1.0, LONG_SIDE_PX / max(picture.shape[:2]))
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    reduced = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    # Pixels at the border of the mask mix the subject with the background.
    core = cv2.erode(inside, np.ones((3, 3), np.uint8))
    if core.sum() >= max(MIN_PIXELS, MIN_CORE_SHARE * inside.sum()):
        inside = core
    pixels = np.asarray(reduced, np.uint8)[inside > 0]
    if len(pixels) < MIN_PIXELS:
        return []
    balanced = pixels
    if gains is not None:
        balanced = np.clip(pixels * gains, 0, 255).astype(np.uint8)
    indices = _color_indices(balanced)
    colors = []
    for index, name in enumerate(PROTOTYPES):
        votes = pixels[indices == index]
        if len(votes) >= MIN_SHARE * len(pixels):
            red, green, blue = np.median(votes, axis=0).astype(int)
            share = len(votes) / len(pixels)
            colors.append(Color(name, f"#{red:02x}{green:02x}{blue:02x}", share))
    return sorted(colors, key=lambda color: -color.share)[:MAX_COLORS]


def _color_indices(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Return the index into `PROTOTYPES` of each pixel's nearest color, RGB [N, 3] → [N]."""
    red, green, blue = (pixels >> (8 - TABLE_BITS)).astype(np.intp).T
    indices: npt.NDArray[np.intp] = _lookup_table()[
        (red << 2 * TABLE_BITS) | (green << TABLE_BITS) | blue
    ]
    return indices


@functools.cache
def _lookup_table() -> npt.NDArray[np.intp]:
    """Return the color index of each combination of the channels' high bits; computed in 0.2 s."""
    levels = (np.arange(1 << TABLE_BITS) << (8 - TABLE_BITS)) + (1 << (7 - TABLE_BITS))
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    return _nearest_colors(_lab(grid.reshape(-1, 3).astype(np.uint8)))


def _lab(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Convert RGB [N, 3] to CIE Lab [N, 3]: lightness 0 to 100, a and b about -100 to 100."""
    lab = cv2.cvtColor(pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    return np.asarray(lab, dtype=np.float32)


def _nearest_colors(lab: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Return the index into `PROTOTYPES` of each pixel's nearest color, CIE Lab [N, 3] → [N]."""
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    weights = np.array([LIGHTNESS_WEIGHT, 1.0, 1.0], np.float32)
    distances = []
    for name, samples in PROTOTYPES.items():
        prototypes = _lab(np.array(samples, np.uint8))
        squared = ((lab[:, None] - prototypes[None]) * weights) ** 2
        distance = squared.sum(axis=2).min(axis=1)
        if name in ACHROMATIC:
            distance += 4 * np.clip(chroma - MAX_ACHROMATIC_CHROMA, 0, 20) ** 2
        else:
            distance += 25 * np.clip(MIN_CHROMATIC_CHROMA - chroma, 0, None) ** 2
        distances.append(distance)
    nearest: npt.NDArray[np.intp] = np.argmin(np.stack(distances), axis=0)
    return nearest
