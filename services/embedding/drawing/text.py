"""Words as pixels: any script, in rows that fit, with an ellipsis where words are left out.

Pango shapes text, orders it by direction and picks a font for every script from those that are
installed (`make system-packages`). Where there are none at all, Pillow's built-in font draws what
it can: a drawing never fails for want of a font.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import pyvips
import regex
import structlog
from PIL import Image, ImageDraw, ImageFont

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
"""A character of each script that we promise to draw."""

ELLIPSIS = "…"
GRAPHEME = regex.compile(r"\X")
"""What readers take for one character (Unicode UAX #29)."""
LINE_HEIGHT = 1.35
"""From row to row, in sizes of the font; taller scripts take what they need."""

HEADROOM = 0.12
"""What fonts leave over capitals beyond what they leave under descenders, in sizes of the font:
taken off, so that words stand in the middle of their row."""

NARROWEST_EM = 0.2
"""No grapheme that people write in number is narrower: text beyond what that lets into the rows is
not even measured."""

BREAK_AFTER = frozenset(" -_/.,;:%·|")
EARLIEST_BREAK = 0.55
"""A row ends after one of these, if that leaves it so full; else between any two graphemes."""

MOST_MARKS = 4
"""On one character."""

CACHED_ROWS = 512
LARGEST_CACHED = 48_000
"""Characters times the square of the font's size: about 256 kB of pixels, 128 MB for all rows."""
LONGEST_MEASURED = 256
"""Graphemes; more don't fit in two rows anywhere."""

HIDDEN = dict.fromkeys(
    [*range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF]
)
"""Marks that turn the direction of text around: one line's must not reach into another's."""


@dataclass(frozen=True, slots=True)
class Style:
    """How words look."""

    size_px: int
    color: str
    """"#rrggbb"; emoji keep their own."""
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Words set in one row."""

    pixels: Pixels
    """Height × width × RGBA, straight alpha, cropped to the ink."""
    top_px: int
    """From the top of the row to the top of the ink."""
    height_px: int
    """From this row to the next one."""
    is_right_to_left: bool

    @property
    def width_px(self) -> int:
        return int(self.pixels.shape[1])


def set_rows(text: str, style: Style, *, width_px: int, max_rows: int = 1) -> list[Row]:
    """Set a line of text in rows no wider than asked; the last one ends in "…" if words are left.

    Returns:
        The rows; none where the text is empty or not even "…" fits.
    """
    graphemes = _graphemes(text)
    most = round(max_rows * width_px / (NARROWEST_EM * style.size_px)) + 1
    was_cut = len(graphemes) > most
    left: Sequence[str] = graphemes[:most]
    rows: list[Row] = []
    while left:
        if not was_cut and (row := set_row("".join(left), style)).width_px <= width_px:
            return [*rows, row]
        if len(rows) + 1 == max_rows:
            last = _fitted(left, style, width_px)
            return [*rows, last] if last else rows
        count = _break(left, _fitting(left, style, width_px))
        if not count:
            return rows
        rows.append(set_row("".join(left[:count]).rstrip(), style))
        left = _stripped(left[count:])
    return rows


def natural_size_px(text: str, style: Style) -> tuple[int, int]:
    """Width of a line in one row, and its height with what lies between rows."""
    graphemes = _graphemes(text)
    if not graphemes:
        return 0, 0
    row = set_row("".join(graphemes[:LONGEST_MEASURED]), style)
    return row.width_px, row.height_px


def set_row(text: str, style: Style) -> Row:
    """Set clean text in one row, however wide that gets."""
    if len(text) * style.size_px**2 > LARGEST_CACHED:
        return _row(text, style)
    return _cached_row(text, style)


@functools.lru_cache(CACHED_ROWS)
def _cached_row(text: str, style: Style) -> Row:
    return _row(text, style)


def _row(text: str, style: Style) -> Row:
    draw = _pango if has_fonts() else _built_in
    pixels, top_px = draw(text, style)
    top_px = max(0, top_px - round(HEADROOM * style.size_px))
    return Row(
        pixels,
        top_px,
        max(round(LINE_HEIGHT * style.size_px), top_px + pixels.shape[0]),
        _is_right_to_left(text),
    )


@functools.cache
def has_fonts() -> bool:
    """Whether Pango finds any font."""
    return not _is_box(_pango("a", Style(24, "#000000"))[0])


def missing_scripts() -> list[str]:
    """Scripts whose characters would be drawn as boxes with their numbers."""
    style = Style(48, "#000000")
    return [name for name, sample in SAMPLES.items() if _is_box(_pango(sample, style)[0])]


def warm_up() -> None:
    """Find the fonts, which takes a while the first time, and log which scripts have none."""
    if missing := missing_scripts():
        structlog.get_logger().warning(
            "drawing.fonts_missing",
            scripts=missing,
            hint=f"install {PACKAGES}; until then their characters are drawn as boxes",
        )


def _graphemes(text: str) -> list[str]:
    """Split a line into its characters, without what no font draws."""
    spaced = " ".join(text.translate(HIDDEN).split())
    if spaced.isascii() and spaced.isprintable():
        return list(spaced)
    clean = "".join(each for each in spaced if unicodedata.category(each) not in {"Cc", "Cs", "Cn"})
    # Once more: what is left out may have stood before a space.
    return [_calm(each) for each in GRAPHEME.findall(" ".join(clean.split()))]


def _calm(grapheme: str) -> str:
    """Leave out marks beyond those that any script stacks; without end they'd fill the picture."""
    if len(grapheme) <= MOST_MARKS:
        return grapheme
    marks = itertools.count(1)
    return "".join(
        each for each in grapheme if unicodedata.category(each) != "Mn" or next(marks) <= MOST_MARKS
    )


def _fitted(graphemes: Sequence[str], style: Style, width_px: int) -> Row | None:
    """Set as many as fit before an ellipsis."""
    ellipsis_px = set_row(ELLIPSIS, style).width_px
    if ellipsis_px > width_px:
        return None
    count = min(_fitting(graphemes, style, width_px - ellipsis_px // 2), len(graphemes) - 1)
    while count:
        row = set_row("".join(graphemes[:count]).rstrip() + ELLIPSIS, style)
        if row.width_px <= width_px:
            return row
        count -= 1
    return set_row(ELLIPSIS, style)


def _fitting(graphemes: Sequence[str], style: Style, width_px: int) -> int:
    """Count how many fit into a row: an interpolation search, since widths grow nearly evenly."""
    low, low_px = 0, 0
    high, high_px = len(graphemes), set_row("".join(graphemes), style).width_px
    if high_px <= width_px:
        return high
    while high - low > 1:
        share = (width_px - low_px) / (high_px - low_px)
        middle = min(max(low + round(share * (high - low)), low + 1), high - 1)
        middle_px = set_row("".join(graphemes[:middle]), style).width_px
        if middle_px <= width_px:
            low, low_px = middle, middle_px
        else:
            high, high_px = middle, max(middle_px, width_px + 1)
    return low


def _break(graphemes: Sequence[str], count: int) -> int:
    """Move the end of a row to where words end, if that is near."""
    for end in range(count, int(EARLIEST_BREAK * count), -1):
        if graphemes[end - 1] in BREAK_AFTER or (end < len(graphemes) and graphemes[end] == " "):
            return end
    return count


def _stripped(graphemes: Sequence[str]) -> Sequence[str]:
    first = next((at for at, each in enumerate(graphemes) if each != " "), len(graphemes))
    return graphemes[first:]


def _is_right_to_left(text: str) -> bool:
    """Whether the first letter with a direction runs to the left (Unicode UAX #9, rule P2)."""
    directions = (unicodedata.bidirectional(each) for each in text)
    return next((each != "L" for each in directions if each in {"L", "R", "AL"}), False)


def _pango(text: str, style: Style) -> tuple[Pixels, int]:
    try:
        image = pyvips.Image.text(
            f'<span foreground="{style.color}">{escape(text)}</span>',
            font=f"{FAMILIES} {'Bold ' if style.bold else ''}{style.size_px}",
            dpi=72,  # so that a point is a pixel
            rgba=True,
        )
    except pyvips.Error:  # of characters without ink, like a soft hyphen
        return np.zeros((1, 1, 4), np.uint8), 0
    # In this thread: libvips would start others for a few pixels.
    ink = pyvips.Region.new(image).fetch(0, 0, image.width, image.height)
    pixels = np.frombuffer(ink, np.uint8).reshape(image.height, image.width, 4)
    return pixels, max(0, image.get("yoffset"))


def _built_in(text: str, style: Style) -> tuple[Pixels, int]:
    font = ImageFont.load_default(style.size_px)
    left, top, right, bottom = map(round, font.getbbox(text))
    row = Image.new("RGBA", (max(1, right - left), max(1, bottom - top)), style.color + "00")
    ImageDraw.Draw(row).text((-left, -top), text, style.color, font)
    return np.asarray(row), max(0, top)


def _is_box(pixels: Pixels) -> bool:
    """Whether this is the box that Pango draws for a character that no font has."""
    ink = pixels[..., 3] > 0
    sides = (ink[0], ink[-1], ink[:, 0], ink[:, -1])
    return all(side.mean() > 0.9 for side in sides)  # noqa: PLR2004  # corners may be soft
