"""Drawn elements: logos from open-source icons, posters, and repeating patterns.

A drawing depends only on its sources and its seeded `random.Random`, so every run draws the same.
"""

from __future__ import annotations

import colorsys
import random
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pyvips

Pixels = npt.NDArray[np.uint8]
"""uint8 [height, width, 3 or 4], RGB, with alpha last."""
Color = tuple[int, int, int]

WHITE: Color = (255, 255, 255)
ICON_UNITS = 24
"""Side of an icon in SVG units."""
WORDS = (
    *("fresh", "original", "summer", "market", "studio", "nova", "kraft", "botanic", "urban"),
    *("sale", "pure", "coast", "mono", "extra", "records", "festival", "north", "classic"),
    *("organic", "daily", "garden", "express", "club", "atlas", "river", "lumen"),
)
FONTS = ("sans", "serif", "monospace", "sans bold", "serif bold italic")


@dataclass(frozen=True, slots=True)
class Drawn:
    """An element as it is stored, and as it is pasted into a photo."""

    stored: Pixels
    """Pixels of the stored image, RGB."""
    pasted: Pixels
    """Pixels of the pasted image, RGBA."""


def opaque(pixels: Pixels) -> Pixels:
    alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    return np.concatenate([pixels, alpha], axis=2)


def icon_mask(path: Path, side_px: int) -> Pixels:
    """Render an icon's shape, uint8 [side, side]."""
    image = pyvips.Image.svgload(str(path), scale=side_px / ICON_UNITS)
    mask = np.asarray(image.numpy()[:, :, 3], np.uint8)
    return np.asarray(cv2.resize(mask, (side_px, side_px)), np.uint8)


def color(rng: random.Random, *, dark: bool | None = None) -> Color:
    value = (
        rng.uniform(0.15, 0.95)
        if dark is None
        else rng.uniform(*((0.1, 0.45), (0.75, 1))[not dark])
    )
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.95), value)
    return round(red * 255), round(green * 255), round(blue * 255)


def contrasting(ground: Color, rng: random.Random) -> Color:
    """Return a random ink color; in most cases it is visibly lighter or darker than the ground."""
    least = rng.choice([0, 30, 40, 50, 60, 80])
    while True:
        ink = color(rng)
        if abs(_luma(ink) - _luma(ground)) >= least:
            return ink


def _luma(of: Color) -> float:
    red, green, blue = of
    return 0.299 * red + 0.587 * green + 0.114 * blue


def painted(mask: Pixels, ink: Color) -> Pixels:
    """Return a mask as RGBA in a single color."""
    return np.dstack([np.broadcast_to(np.array(ink, np.uint8), (*mask.shape, 3)), mask])


def over(top: Pixels, below: Pixels) -> Pixels:
    """Blend RGBA over RGB of the same size."""
    alpha = top[:, :, 3:].astype(np.float32) / 255
    mixed = top[:, :, :3] * alpha + below * (1 - alpha)
    return np.asarray(np.rint(mixed), np.uint8)


def plain(height: int, width: int, fill: Color) -> Pixels:
    return np.full((height, width, 3), fill, np.uint8)


def glyph(icon: Path, rng: random.Random) -> Drawn:
    """Draw a bare logo: stored in one color on white, pasted in any color without a ground."""
    side, margin = 320, 24
    mask = np.pad(icon_mask(icon, side - 2 * margin), margin)
    stored = over(
        painted(mask, rng.choice([(0, 0, 0), color(rng, dark=True)])), plain(side, side, WHITE)
    )
    ink = rng.choice([(0, 0, 0), WHITE, color(rng)])
    return Drawn(stored, painted(mask, ink))


def tile(icon: Path, rng: random.Random) -> Drawn:
    """Draw a logo on a tile, in half of the cases with its name below."""
    side = 320
    ground, ink = color(rng, dark=True), WHITE
    if rng.random() < 0.4:
        ground, ink = WHITE, ground
    pixels = plain(side, side, ground)
    size = rng.randint(150, 220)
    left, top = (side - size) // 2, rng.randint(20, 40)
    spot = pixels[top : top + size, left : left + size]
    spot[:] = over(painted(icon_mask(icon, size), ink), spot)
    if rng.random() < 0.5:
        write(pixels, icon.stem.title(), ink, (30, 255, 260, 45), rng.choice(FONTS))
    return Drawn(pixels, opaque(pixels))


def write(pixels: Pixels, text: str, ink: Color, box: tuple[int, int, int, int], font: str) -> None:
    """Write text as large as it fits into a box (left, top, width, height in pixels)."""
    left, top, width, height = box
    mask = pyvips.Image.text(text, font=font, width=width, height=height).numpy()
    mask = np.asarray(mask, np.uint8).reshape(mask.shape[0], mask.shape[1])[:height, :width]
    spot = pixels[top : top + mask.shape[0], left : left + mask.shape[1]]
    spot[:] = over(painted(mask[: spot.shape[0], : spot.shape[1]], ink), spot)


def poster(photo: Pixels, rng: random.Random) -> Drawn:
    """Draw a poster with a photo, a headline and small print."""
    width, height = 400, rng.choice([300, 400, 560])
    ground = color(rng)
    ink = WHITE if sum(ground) < 380 else (20, 20, 20)  # darker than halfway to white
    pixels = plain(height, width, ground)
    shown = round(height * rng.uniform(0.4, 0.65))
    top = rng.choice([0, height - shown])
    pixels[top : top + shown] = cv2.resize(photo, (width, shown), interpolation=cv2.INTER_AREA)
    free = shown if top == 0 else 0
    room = height - shown
    head = " ".join(rng.sample(WORDS, rng.randint(1, 2))).upper()
    font = rng.choice(FONTS)
    write(pixels, head, ink, (20, free + room // 10, 360, room // 2), font)
    small = " ".join(rng.sample(WORDS, 4))
    write(pixels, small, ink, (20, free + room * 7 // 10, 360, room // 5), font)
    return Drawn(pixels, opaque(pixels))


def repeat(icon: Path, rng: random.Random) -> Drawn:
    """Draw a repeating pattern: motifs on a lattice, over stripes, checks, dots or plain color."""
    side, period = 400, rng.randint(56, 110)
    ground = color(rng)
    ink = contrasting(ground, rng)
    cell = plain(period, period, ground)
    style = rng.choice(["plain", "stripes", "checks", "dots"])
    second = color(rng)
    if style in {"stripes", "checks"}:
        cell[:, : period // rng.randint(2, 5)] = second
    if style == "checks":
        cell[: period // 3] = np.asarray(
            cell[: period // 3] * 0.6 + np.array(second) * 0.4, np.uint8
        )
    if style == "dots":
        for _ in range(rng.randint(2, 6)):
            place = rng.randrange(period), rng.randrange(period)
            cv2.circle(cell, place, rng.randint(3, period // 6), second, -1, cv2.LINE_AA)
    size = round(period * rng.uniform(0.45, 0.8))
    left, top = rng.randint(0, period - size), rng.randint(0, period - size)
    spot = cell[top : top + size, left : left + size]
    turned = np.rot90(icon_mask(icon, size), rng.randrange(4))
    spot[:] = over(painted(np.ascontiguousarray(turned), ink), spot)
    count = side // period + 2
    rows = [
        np.roll(np.tile(cell, (1, count, 1)), row % 2 * period // 2 * (style == "plain"), 1)
        for row in range(count)
    ]
    pixels = np.ascontiguousarray(np.concatenate(rows)[:side, :side])
    return Drawn(pixels, opaque(pixels))


def cut_out(pixels: Pixels) -> Pixels:
    """Return a picture on white as RGBA, with the white that touches its edges transparent."""
    gray = pixels.min(axis=2)
    light = np.asarray(gray > 238, np.uint8)  # JPEG leaves white slightly gray
    _, labels = cv2.connectedComponents(light)
    edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    outside = np.isin(labels, np.unique(edges[edges > 0]))
    alpha = cv2.GaussianBlur(np.where(outside, 0, 255).astype(np.uint8), (3, 3), 0)
    return np.dstack([pixels, alpha])
