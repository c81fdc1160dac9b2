"""Numbers and enum values as text."""

from __future__ import annotations

import math

MIN_SHOWN_RATE = 1e-6
"""Minimum displayed rate; the calibration data cannot distinguish lower rates."""
EVEN_RATE = 0.5
"""Rate at which half of the searches without a true match return a match."""
BYTES_IN_KB = 1000


def chance_words(rate: float) -> str:
    """Return a false-positive rate as text, which the template macro `about_scores` explains.

    >>> chance_words(0.0004)
    'by chance in about 1 of 2,500 searches'
    >>> chance_words(0.7)
    'by chance in more than half of the searches'
    """
    if rate >= EVEN_RATE:
        return "by chance in more than half of the searches"
    if rate < MIN_SHOWN_RATE:
        return "by chance in fewer than 1 of 1,000,000 searches"
    return f"by chance in about 1 of {_two_digits(1 / rate):,} searches"


def count_words(count: int, singular: str, plural: str = "", *, at_least: bool = False) -> str:
    """Return a count with its noun.

    >>> count_words(1, "match", "matches"), count_words(0, "search", "searches")
    ('1 match', 'no searches')
    >>> count_words(1000, "match", "matches", at_least=True)
    'at least 1,000 matches'
    """
    number = f"{count:,}" if count else "no"
    noun = singular if count == 1 else plural or f"{singular}s"
    return f"{'at least ' if at_least else ''}{number} {noun}"


def duration_words(duration_ms: float) -> str:
    """Return a duration with its unit.

    >>> [duration_words(time_ms) for time_ms in (0.42, 48.4, 1234)]
    ['0.4 ms', '48 ms', '1.2 s']
    """
    if duration_ms >= 1000:  # noqa: PLR2004  # milliseconds of a second
        return f"{duration_ms / 1000:.1f} s"
    return f"{duration_ms:.0f} ms" if duration_ms >= 10 else f"{duration_ms:.1f} ms"  # noqa: PLR2004


def size_words(size_bytes: int) -> str:
    """Return a file size with its unit.

    >>> [size_words(size) for size in (900, 48_200, 3_400_000)]
    ['900 B', '48 kB', '3.4 MB']
    """
    if size_bytes < BYTES_IN_KB:
        return f"{size_bytes} B"
    if size_bytes < BYTES_IN_KB**2:
        return f"{size_bytes / BYTES_IN_KB:.0f} kB"
    return f"{size_bytes / BYTES_IN_KB**2:.1f} MB"


def enum_words(name: str, *, prefix: str) -> str:
    """Return the name of an enum value as words; empty for UNSPECIFIED.

    >>> enum_words("CATEGORY_DIGITAL_DEVICE", prefix="CATEGORY_")
    'digital device'
    """
    return name.removeprefix(prefix).lower().replace("_", " ").replace("unspecified", "")


def _two_digits(number: float) -> int:
    """Round to two significant digits, the precision of the data."""
    step = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return int(round(number / step) * step)
