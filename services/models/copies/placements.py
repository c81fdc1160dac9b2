"""Copies that are a part of another picture: pasted into a photo, or on a screen.

Each placement returns the picture and the true box of the copy in it. The names of the placements
seed their randomness, so their spelling must not change.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import augly.image as augly
from augly.utils import SCREENSHOT_TEMPLATES_DIR
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from imagesearch_services.models.copies.edits import WORDS

Color = tuple[int, int, int]

PASTED_SHARES = (0.25, 0.5)
"""Range of the long side of a pasted copy, as a share of the long side of its host."""

PHONES_PX = ((390, 844), (412, 915), (360, 640))
DESKTOPS_PX = ((1280, 800), (1440, 900), (1100, 900))


class PixelBox(NamedTuple):
    """Box of the copy in pixels; the maxima are exclusive."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


class Placed(NamedTuple):
    """A picture and the box of the copy in it."""

    image: Image.Image
    box: PixelBox


Placement = Callable[[Image.Image, random.Random, Image.Image], Placed]
"""Function of the copy, a random generator, and the host picture, which screens ignore."""


def pasted(image: Image.Image, rng: random.Random, host: Image.Image) -> Placed:
    """Paste at 25 to 50 % of the host's long side, at a random place in a random style."""
    host = host.copy()
    factor = rng.uniform(*PASTED_SHARES) * max(host.size) / max(image.size)
    factor = min(factor, host.width / image.width, host.height / image.height)
    copy = _scaled(image, factor)
    x, y = rng.randint(0, host.width - copy.width), rng.randint(0, host.height - copy.height)
    style = rng.choice(["plain", "plain", "compressed", "rounded", "bordered", "shadowed"])
    mask = None
    if style == "rounded":
        mask = Image.new("L", copy.size, 0)
        edge = (0, 0, copy.width - 1, copy.height - 1)
        ImageDraw.Draw(mask).rounded_rectangle(edge, min(copy.size) // 10, fill=255)
    elif style == "bordered":
        ImageDraw.Draw(copy).rectangle(
            (0, 0, copy.width - 1, copy.height - 1),
            outline=rng.choice([(255, 255, 255), (0, 0, 0), (200, 30, 30)]),
            width=max(2, min(copy.size) // 40),
        )
    elif style == "shadowed":
        shadow = Image.new("L", host.size, 0)
        ImageDraw.Draw(shadow).rectangle(
            (x + 4, y + 4, x + copy.width + 4, y + copy.height + 4), fill=140
        )
        host.paste((0, 0, 0), mask=shadow.filter(ImageFilter.GaussianBlur(4)))
    host.paste(copy, (x, y), mask)
    if style == "compressed":
        host = _compressed(host, rng.randint(35, 75))
    return Placed(host, PixelBox(x, y, x + copy.width, y + copy.height))


def screenshot_augly(image: Image.Image, rng: random.Random, _host: Image.Image) -> Placed:
    """Insert the copy into a template of AugLy: a social network on the web or on a phone."""
    template = Path(SCREENSHOT_TEMPLATES_DIR) / rng.choice(["web.png", "mobile.png"])
    slots = json.loads((template.parent / "bboxes.json").read_text())
    x_min, y_min, x_max, y_max = slots[template.name]
    shot: Image.Image = augly.overlay_onto_screenshot(image, template_filepath=str(template))
    factor = min((x_max - x_min) / image.width, (y_max - y_min) / image.height)
    width, height = image.width * factor, image.height * factor
    left = x_min + (x_max - x_min - width) / 2
    top = y_min + (y_max - y_min - height) / 2
    return Placed(shot.convert("RGB"), PixelBox(left, top, left + width, top + height))


def screenshot_phone(image: Image.Image, rng: random.Random, _host: Image.Image) -> Placed:
    """Draw the screen of a phone around the copy."""
    return _screen(image, rng, rng.choice(PHONES_PX), is_phone=True)


def screenshot_desktop(image: Image.Image, rng: random.Random, _host: Image.Image) -> Placed:
    """Draw a page in a desktop browser around the copy."""
    return _screen(image, rng, rng.choice(DESKTOPS_PX), is_phone=False)


def _screen(
    image: Image.Image, rng: random.Random, size: tuple[int, int], *, is_phone: bool
) -> Placed:
    """Draw a bar, lines of text, avatars and the copy, on a light or dark background."""
    width, height = size
    is_dark = rng.random() < 0.4
    ground: Color = (
        rng.choice([(18, 18, 18), (30, 30, 34), (0, 0, 0)])
        if is_dark
        else rng.choice([(255, 255, 255), (245, 246, 248), (240, 242, 245)])
    )
    ink = (225, 225, 225) if is_dark else (30, 30, 30)
    screen = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(screen)
    bar_px = height // 14
    bar = (42, 42, 46) if is_dark else rng.choice([(59, 89, 152), (230, 230, 235), (29, 161, 242)])
    draw.rectangle((0, 0, width, bar_px), fill=bar)
    share = rng.uniform(0.6, 1.0) if is_phone else rng.uniform(0.3, 0.6)
    factor = min(width * share / image.width, height * 0.7 / image.height)
    copy = _scaled(image, factor)
    free_px = width - copy.width
    x = rng.choice([0, free_px // 2, free_px]) if is_phone else rng.randint(0, free_px)
    first_y = height // 8
    y = rng.randint(first_y, max(first_y, height - copy.height - 20))
    box = PixelBox(x, y, x + copy.width, y + copy.height)
    _write(draw, rng, around=box, first_y=bar_px, ink=ink, words=9 if is_phone else 22)
    for _ in range(rng.randint(0, 4)):
        center = (
            rng.randint(10, width - 10),
            rng.choice([rng.randint(bar_px, first_y), height - 20]),
        )
        color = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        draw.circle(center, 10, fill=color)
    screen.paste(copy, (x, y))
    if rng.random() < 0.5:
        screen = _compressed(screen, rng.randint(40, 85))
    return Placed(screen, box)


def _write(
    draw: ImageDraw.ImageDraw,
    rng: random.Random,
    *,
    around: PixelBox,
    first_y: int,
    ink: Color,
    words: int,
) -> None:
    """Write lines of 3 to `words` random words above and below the box `around`."""
    font = ImageFont.load_default(size=rng.choice([12, 14, 16]))
    for y in range(first_y + 8, draw.im.size[1] - 20, 22):
        is_free = y + 18 < around.y_min or y > around.y_max + 4
        if is_free and rng.random() < 0.8:
            line = " ".join(rng.choices(WORDS, k=rng.randint(3, words)))
            draw.text((14, y), line, fill=ink, font=font)


def _scaled(image: Image.Image, factor: float) -> Image.Image:
    size = (max(16, int(image.width * factor)), max(16, int(image.height * factor)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


PLACEMENTS: Mapping[str, Placement] = {
    "pasted": pasted,
    "screenshot_augly": screenshot_augly,
    "screenshot_phone": screenshot_phone,
    "screenshot_desktop": screenshot_desktop,
}
