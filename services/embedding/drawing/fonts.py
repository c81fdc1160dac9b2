"""Rasterizes text of any script in one row, with the installed fonts.

Pango shapes the text, orders it by direction and picks a font for each script from the installed
fonts (`make system-packages`). If no fonts are installed, Pillow's built-in font draws the
characters that it has. So a drawing never fails because a font is missing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import pyvips
from PIL import Image, ImageDraw, ImageFont

from imagesearch_services.common.logs import logger

Pixels = npt.NDArray[np.uint8]

FAMILIES = "Noto Sans, DejaVu Sans, sans-serif"
PACKAGES = "fonts-noto-core fonts-noto-cjk fonts-noto-color-emoji"

SAMPLES = {
    "Latin": "a",
    "Cyrillic": "ж",
    "Greek": "λ",
    "Arabic": "ع",
    "Hebrew": "א",
    "Devanagari": "क",
    "Thai": "ก",
    "Chinese": "文",
    "Japanese": "あ",
    "Korean": "한",
    "emoji": "😀",
}
"""A sample character of each supported script."""

SOLID_EDGE_SHARE = 0.9
"""Minimum inked share of each edge of a missing-glyph box, whose corners may be antialiased."""


@dataclass(frozen=True, slots=True)
class Style:
    """Font size, weight and color of text."""

    size_px: int
    color: str
    """ "#rrggbb"; emoji keep their own colors."""
    bold: bool = False


def rasterize(text: str, style: Style) -> tuple[Pixels, int]:
    """Draw text in one row of any width.

    Args:
        text: text without control characters.
        style: font size, weight and color.

    Returns:
        uint8 RGBA with straight alpha, cropped to the ink, [height, width, 4], and the distance
        from the top of the row to the top of the ink, in pixels.
    """
    return (_rasterize_with_pango if has_fonts() else _rasterize_with_pillow)(text, style)


@functools.cache
def has_fonts() -> bool:
    """Return whether Pango finds any font."""
    return not _is_missing_glyph(_rasterize_with_pango("a", Style(24, "#000000"))[0])


def missing_scripts() -> list[str]:
    """Return the supported scripts that no installed font covers."""
    style = Style(48, "#000000")
    return [
        script
        for script, sample in SAMPLES.items()
        if _is_missing_glyph(_rasterize_with_pango(sample, style)[0])
    ]


def warm_up() -> None:
    """Load the fonts, which is slow the first time, and log the scripts that have none."""
    if missing := missing_scripts():
        logger().warning(
            "drawing.fonts_missing",
            scripts=missing,
            hint=f"install {PACKAGES}; until then, characters of these scripts appear as boxes",
        )


def _rasterize_with_pango(text: str, style: Style) -> tuple[Pixels, int]:
    try:
        image = pyvips.Image.text(
            f'<span foreground="{style.color}">{escape(text)}</span>',
            font=f"{FAMILIES} {'Bold ' if style.bold else ''}{style.size_px}",
            dpi=72,  # one point is one pixel
            rgba=True,
        )
    except pyvips.Error:  # the text has no ink, such as a soft hyphen
        return np.zeros((1, 1, 4), np.uint8), 0
    # A region renders in this thread; libvips would start other threads for a few pixels.
    ink = pyvips.Region.new(image).fetch(0, 0, image.width, image.height)
    pixels = np.frombuffer(ink, np.uint8).reshape(image.height, image.width, 4)
    return pixels, max(0, image.get("yoffset"))


def _rasterize_with_pillow(text: str, style: Style) -> tuple[Pixels, int]:
    font = ImageFont.load_default(style.size_px)
    left, top, right, bottom = map(round, font.getbbox(text))
    row = Image.new("RGBA", (max(1, right - left), max(1, bottom - top)), style.color + "00")
    ImageDraw.Draw(row).text((-left, -top), text, style.color, font)
    return np.asarray(row), max(0, top)


def _is_missing_glyph(pixels: Pixels) -> bool:
    """Return whether the ink is the box that Pango draws for a character without a font."""
    ink = pixels[..., 3] > 0
    edges = (ink[0], ink[-1], ink[:, 0], ink[:, -1])
    return all(edge.mean() > SOLID_EDGE_SHARE for edge in edges)
