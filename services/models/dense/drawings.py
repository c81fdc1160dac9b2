"""Drawn things: glyphs, emoji, clip art, patterns, posters and made-up names."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from imagesearch_services.models.dense.pixels import (
    SIDE_PX,
    Picture,
    contrasting,
    decode,
    over,
    painted,
    random_color,
    with_alpha,
)

Drawings = dict[str, list[Picture]]
"""Pictures by kind; the kinds are the keys of `COUNTS`."""

COUNTS = {"glyph": 1100, "emoji": 450, "clip_art": 850, "pattern": 450, "poster": 350, "word": 250}
"""Number of drawings of each kind."""
DRAWN_PX = 256
"""Long side of a drawing, in pixels."""
ICON_FILES = {"glyph": ("mdi", "ph"), "emoji": ("noto", "fluent-emoji-flat")}
"""Icon collections of each kind."""
SKIPPED_ICONS = ("logo", "thin", "light", "duotone", "outline")
"""Parts of names by which icons are excluded: brands, and variants of other icons."""
MIN_OPACITY = 8
"""Alpha value, of 255, above which a pixel counts as opaque."""
MIN_COVERAGE = 0.04
"""Minimum share of opaque pixels in an icon."""
MIN_CLIP_ART_PX = 64
"""Minimum short side of a piece of clip art, in pixels."""
FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
SYLLABLES = (
    *("ka", "lo", "mi", "ne", "ra", "sto", "vi", "zen", "tor", "el"),
    *("ix", "ana", "bru", "go", "pel", "qui", "fa", "dy", "mo", "sun"),
)


def draw_all(icons: Path, clip_art: Path, rng: random.Random) -> Drawings:
    """Draw the pictures of every kind.

    Args:
        icons: Folder with mdi.json, ph.json, noto.json and fluent-emoji-flat.json from the packages
            `@iconify-json/…` (Apache-2.0, MIT, Apache-2.0, MIT).
        clip_art: Folder of Debian's `openclipart-png` (public domain), unpacked.
        rng: Source of randomness.
    """
    drawn = draw_icons(icons, rng)
    drawn["clip_art"] = read_clip_art(clip_art, rng)
    drawn["pattern"] = [draw_pattern(drawn, rng) for _ in range(COUNTS["pattern"])]
    drawn["word"] = [draw_word(rng) for _ in range(COUNTS["word"])]
    drawn["poster"] = [draw_poster(drawn, rng) for _ in range(COUNTS["poster"])]
    return drawn


def draw_icons(folder: Path, rng: random.Random) -> Drawings:
    """Render glyphs and emoji, the same number from each collection."""
    drawn: Drawings = {}
    for kind, files in ICON_FILES.items():
        drawn[kind] = []
        for file in files:
            collection = json.loads((folder / f"{file}.json").read_text())
            names = [
                name
                for name in sorted(collection["icons"])
                if not any(part in name for part in SKIPPED_ICONS)
            ]
            rng.shuffle(names)
            of_file: list[Picture] = []
            for name in names:
                picture = _rendered(_svg(collection["icons"][name], collection))
                if picture is not None:
                    of_file.append(picture)
                if len(of_file) == COUNTS[kind] // 2:
                    break
            drawn[kind] += of_file
    return drawn


def _svg(icon: dict[str, object], icons: dict[str, object]) -> str:
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{DRAWN_PX}" height="{DRAWN_PX}" color="black">'
        f"{icon['body']}</svg>"
    )


def _rendered(svg: str) -> Picture | None:
    """Render an icon and crop its transparent border; None if it is almost transparent."""
    import resvg_py  # noqa: PLC0415 only this step needs it

    rendered = decode(bytes(resvg_py.svg_to_bytes(svg_string=svg)))
    is_opaque = rendered[..., 3] > MIN_OPACITY
    if is_opaque.mean() < MIN_COVERAGE:
        return None
    rows, columns = np.flatnonzero(is_opaque.any(1)), np.flatnonzero(is_opaque.any(0))
    return rendered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def read_clip_art(folder: Path, rng: random.Random) -> list[Picture]:
    """Read a random sample of the clip art."""
    files = [file for file in sorted(folder.rglob("*.png")) if "-theme" not in str(file)]
    rng.shuffle(files)
    pictures: list[Picture] = []
    for file in files:
        picture = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.ndim != 3 or min(picture.shape[:2]) < MIN_CLIP_ART_PX:
            continue
        resized = _resized(picture, DRAWN_PX / max(picture.shape[:2]), min_px=16)
        pictures.append(decode(bytes(cv2.imencode(".png", resized)[1])))
        if len(pictures) == COUNTS["clip_art"]:
            break
    return pictures


def draw_pattern(drawn: Drawings, rng: random.Random) -> Picture:
    """Draw a repeated motif, or stripes, checks or waves."""
    ground_color = random_color(rng)
    ground = np.full((SIDE_PX, SIDE_PX, 3), ground_color, np.uint8)
    if rng.random() < 0.65:
        motifs = [_motif(drawn, ground_color, rng) for _ in range(rng.choice([1, 1, 2, 3]))]
        pitch_x, pitch_y = rng.randint(36, 100), rng.randint(36, 100)
        shift = rng.choice([0, 0, pitch_x // 2])
        for row, y in enumerate(range(-20, SIDE_PX, pitch_y)):
            for column, x in enumerate(range(-60 + shift * (row % 2), SIDE_PX, pitch_x)):
                over(ground, motifs[(row + column) % len(motifs)], x, y)
        return ground
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX].astype(np.float32)
    angle = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    along = columns * np.cos(angle) + rows * np.sin(angle)
    across = rows * np.cos(angle) - columns * np.sin(angle)
    for _ in range(rng.randint(1, 3)):
        period, share = rng.uniform(10, 70), rng.uniform(0.2, 0.6)
        bend = rng.choice([0, 0, rng.uniform(3, 15)])
        bent = along + bend * np.sin(across * 2 * np.pi / rng.uniform(30, 120))
        mask = (bent / period) % 1 < share
        if rng.random() < 0.5:
            mask ^= (across / (period * rng.uniform(0.5, 2))) % 1 < rng.uniform(0.2, 0.6)
        ground[mask] = contrasting(ground_color, rng)
    return ground


def _motif(drawn: Drawings, ground_color: tuple[int, int, int], rng: random.Random) -> Any:
    kind = rng.choice(["glyph", "glyph", "emoji", "clip_art"])
    motif = with_alpha(rng.choice(drawn[kind]))
    if kind == "glyph":
        motif = painted(motif, contrasting(ground_color, rng))
    return _resized(motif, rng.uniform(28, 80) / max(motif.shape[:2]), min_px=6)


def random_word(rng: random.Random) -> str:
    """Return a made-up name."""
    text = "".join(rng.choices(SYLLABLES, k=rng.randint(1, 3)))
    return rng.choice([text, text.title(), text.upper()])


def draw_word(rng: random.Random) -> Picture:
    """Draw a made-up name in one color, RGBA."""
    font, thickness = rng.choice(FONTS), rng.randint(3, 12)
    text = random_word(rng)
    (width, height), below = cv2.getTextSize(text, font, 3, thickness)
    mask: Picture = np.zeros((height + below + 24, width + 24), np.uint8)
    cv2.putText(mask, text, (12, height + 8), font, 3, 255, thickness, cv2.LINE_AA)
    mask = np.asarray(_resized(mask, DRAWN_PX / max(mask.shape), min_px=24), np.uint8)
    return np.dstack([np.full((*mask.shape, 3), random_color(rng), np.uint8), mask])


def draw_poster(drawn: Drawings, rng: random.Random) -> Picture:
    """Draw words, shapes and pictures on a plain background, like a label, a poster or a card."""
    width, height = rng.randint(200, 288), rng.randint(200, 288)
    ground_color = random_color(rng)
    ground = np.full((height, width, 3), ground_color, np.uint8)
    for _ in range(rng.randint(1, 4)):
        x, y = rng.randint(-40, width), rng.randint(-40, height)
        extent = rng.randint(20, 160)
        if rng.random() < 0.5:
            cv2.circle(ground, (x, y), extent // 2, random_color(rng), -1, cv2.LINE_AA)
        else:
            end = (x + extent, y + rng.randint(10, 160))
            cv2.rectangle(ground, (x, y), end, random_color(rng), -1)
    for _ in range(rng.randint(1, 5)):
        kind = rng.choice(["glyph", "emoji", "clip_art", "word", "word"])
        picture = with_alpha(rng.choice(drawn[kind]))
        if kind in {"glyph", "word"}:
            picture = painted(picture, contrasting(ground_color, rng))
        factor = rng.uniform(50, 180) / max(picture.shape[:2])
        x, y = rng.randint(-20, width - 40), rng.randint(-20, height - 40)
        over(ground, _resized(picture, factor, min_px=8), x, y)
    return ground


def _resized(picture: npt.NDArray[Any], factor: float, *, min_px: int) -> npt.NDArray[Any]:
    size = [max(min_px, round(side * factor)) for side in picture.shape[1::-1]]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
