"""Breaks text into rows of a maximum width and truncates it with an ellipsis."""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import regex

from imagesearch_services.embedding.drawing.fonts import Pixels, Style, rasterize

ELLIPSIS = "…"
GRAPHEME = regex.compile(r"\X")
"""An extended grapheme cluster: a user-perceived character (Unicode UAX #29)."""
LINE_HEIGHT = 1.35
"""Minimum distance between baselines, in font sizes; tall scripts take more."""

HEADROOM = 0.12
"""Excess of the space above capitals over the space below descenders, in font sizes; it is removed
to center the text in its row."""

MIN_GRAPHEME_EM = 0.2
"""Lower bound of the average width of a grapheme cluster, in font sizes; text that is too long by
this bound is cut off before it is measured."""

BREAK_AFTER = frozenset(" -_/.,;:%·|")
"""Characters after which a row may end."""
MIN_BREAK_SHARE = 0.55
"""Minimum position of a break after one of `BREAK_AFTER`, as a share of the grapheme clusters that
fit in the row. If there is none, the row breaks between any two grapheme clusters."""

INVISIBLE_CATEGORIES = frozenset({"Cc", "Cs", "Cn"})
"""Unicode general categories that no font draws: controls, surrogates and unassigned characters."""
MAX_MARKS = 4
"""Maximum nonspacing marks on one base character."""

CACHED_ROWS = 512
"""Maximum rows in the cache of rasterized text."""
MAX_CACHED_SIZE = 48_000
"""Maximum size of a cached row: characters times the square of the font size. A row of this size
takes about 256 kB of pixels, a full cache 128 MB."""
MAX_MEASURED = 256
"""Maximum grapheme clusters that are measured: two rows of a drawing never hold more."""

REMOVED = dict.fromkeys(
    [*range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF]
)
"""Characters to remove, a table for `str.translate`: bidirectional controls, which could change the
direction of text in other lines, and the byte order mark."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of rasterized text."""

    pixels: Pixels
    """uint8 RGBA with straight alpha, cropped to the ink, [height, width, 4]."""
    top_px: int
    """Distance from the top of the row to the top of the ink."""
    height_px: int
    """Distance from the top of this row to the top of the next row."""
    is_right_to_left: bool

    @property
    def width_px(self) -> int:
        return int(self.pixels.shape[1])


def set_rows(text: str, style: Style, *, width_px: int, max_rows: int = 1) -> list[Row]:
    """Break a line of text into rows and rasterize them.

    The last row ends in "…" if the text does not fit.

    Args:
        text: any text; control characters are dropped, whitespace is collapsed.
        style: font size, weight and color.
        width_px: maximum width of a row.
        max_rows: maximum number of rows.

    Returns:
        The rows; empty if the text is empty or not even "…" fits.
    """
    graphemes = _graphemes(text)
    max_graphemes = round(max_rows * width_px / (MIN_GRAPHEME_EM * style.size_px)) + 1
    was_cut = len(graphemes) > max_graphemes
    remaining: Sequence[str] = graphemes[:max_graphemes]
    rows: list[Row] = []
    while remaining:
        if not was_cut and (row := set_row("".join(remaining), style)).width_px <= width_px:
            return [*rows, row]
        if len(rows) + 1 == max_rows:
            last = _truncated_row(remaining, style, width_px)
            return [*rows, last] if last else rows
        count = _break_position(remaining, _fitting_count(remaining, style, width_px))
        if not count:
            return rows
        rows.append(set_row("".join(remaining[:count]).rstrip(), style))
        remaining = _without_leading_spaces(remaining[count:])
    return rows


def natural_size_px(text: str, style: Style) -> tuple[int, int]:
    """Return the width and the row height of a line that is set in one row."""
    graphemes = _graphemes(text)
    if not graphemes:
        return 0, 0
    row = set_row("".join(graphemes[:MAX_MEASURED]), style)
    return row.width_px, row.height_px


def set_row(text: str, style: Style) -> Row:
    """Rasterize text without control characters in one row of any width."""
    if len(text) * style.size_px**2 > MAX_CACHED_SIZE:
        return _row(text, style)
    return _row_cached(text, style)


@functools.lru_cache(CACHED_ROWS)
def _row_cached(text: str, style: Style) -> Row:
    return _row(text, style)


def _row(text: str, style: Style) -> Row:
    pixels, top_px = rasterize(text, style)
    top_px = max(0, top_px - round(HEADROOM * style.size_px))
    return Row(
        pixels,
        top_px,
        max(round(LINE_HEIGHT * style.size_px), top_px + pixels.shape[0]),
        _is_right_to_left(text),
    )


def _graphemes(text: str) -> list[str]:
    """Split a line into grapheme clusters, without characters that no font draws."""
    spaced = " ".join(text.translate(REMOVED).split())
    if spaced.isascii() and spaced.isprintable():
        return list(spaced)
    clean = "".join(
        character
        for character in spaced
        if unicodedata.category(character) not in INVISIBLE_CATEGORIES
    )
    # Collapse whitespace again: a removed character may have stood between two spaces.
    return [_with_few_marks(cluster) for cluster in GRAPHEME.findall(" ".join(clean.split()))]


def _with_few_marks(grapheme: str) -> str:
    """Drop nonspacing marks beyond `MAX_MARKS`, which would stack up over the whole picture."""
    if len(grapheme) <= MAX_MARKS:
        return grapheme
    marks = itertools.count(1)
    return "".join(
        character
        for character in grapheme
        if unicodedata.category(character) != "Mn" or next(marks) <= MAX_MARKS
    )


def _truncated_row(graphemes: Sequence[str], style: Style, width_px: int) -> Row | None:
    """Set as many grapheme clusters as fit before an ellipsis; None if not even that fits."""
    ellipsis_px = set_row(ELLIPSIS, style).width_px
    if ellipsis_px > width_px:
        return None
    fitting = _fitting_count(graphemes, style, width_px - ellipsis_px // 2)
    for count in range(min(fitting, len(graphemes) - 1), 0, -1):
        row = set_row("".join(graphemes[:count]).rstrip() + ELLIPSIS, style)
        if row.width_px <= width_px:
            return row
    return set_row(ELLIPSIS, style)


def _fitting_count(graphemes: Sequence[str], style: Style, width_px: int) -> int:
    """Return how many grapheme clusters fit into a row.

    An interpolation search: the width of a text is nearly proportional to its length.
    """
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


def _break_position(graphemes: Sequence[str], count: int) -> int:
    """Return the last break opportunity at or before `count`; `count` if none is close to it."""
    for end in range(count, int(MIN_BREAK_SHARE * count), -1):
        if graphemes[end - 1] in BREAK_AFTER or (end < len(graphemes) and graphemes[end] == " "):
            return end
    return count


def _without_leading_spaces(graphemes: Sequence[str]) -> Sequence[str]:
    start = next(
        (index for index, grapheme in enumerate(graphemes) if grapheme != " "), len(graphemes)
    )
    return graphemes[start:]


def _is_right_to_left(text: str) -> bool:
    """Return whether the first strong character is right-to-left (Unicode UAX #9, rule P2)."""
    directions = (unicodedata.bidirectional(character) for character in text)
    strong = {"L", "R", "AL"}
    return next((direction != "L" for direction in directions if direction in strong), False)
