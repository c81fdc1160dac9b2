"""Bytes as text, for engines whose payload is JSON: eleven characters for nine bytes.

Base64 makes four of three, a twelfth more. The 94 characters are those of ASCII that JSON may have
as they are (RFC 8259): 9 bytes are a number under 94 ** 11, whose digits they stand for.
Entries that are older hold base64, which has no "~".
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

MARK = "~"
"""First of a packed text; next comes how many zero bytes were added at the end."""
BASE = 94
FOUR = BASE**4
BYTES, DIGITS = 9, 11
AT_ONCE = DIGITS * 4096
"""Characters read at once: what is made of them stays in the processor's cache."""
HALF = 32
"""Bits of a group's lower part; 40 are above it."""
GROUP = np.dtype([("top", "u1"), ("middle", ">u4"), ("low", ">u4")])
"""Nine bytes; numbers lose what is above their own bits."""

ALPHABET = np.array([code for code in range(0x20, 0x80) if chr(code) not in '"\\'], np.uint8)
VALUES = np.zeros(256, np.uint8)
VALUES[ALPHABET] = np.arange(BASE)

PAIR = BASE**2
PAIRS = (VALUES.astype(np.uint64) * BASE + VALUES[:, None].astype(np.uint64)).ravel()
"""What two characters stand for, by both as one little-endian number."""

Numbers = npt.NDArray[np.uint64]


def pack(raw: bytes) -> str:
    """Write bytes as text."""
    padding = -len(raw) % BYTES
    groups = np.frombuffer(raw + bytes(padding), np.uint8).reshape(-1, BYTES)
    low, high = _number(groups[:, 5:], 256), _number(groups[:, :5], 256)
    digits = np.empty((len(groups), DIGITS), np.uint8)
    # Two long divisions by 94 ** 4 leave the first three digits.
    for first in (7, 3):
        above, rest = np.divmod(high, FOUR)
        below, rest = np.divmod((rest << HALF) | low, FOUR)
        digits[:, first : first + 4] = _digits(rest, 4)
        high, low = above, below
    digits[:, :3] = _digits(low, 3)
    return f"{MARK}{padding}{ALPHABET[digits].tobytes().decode('ascii')}"


def unpack(texts: Sequence[str]) -> list[bytes]:
    """Read several texts back; those of base64, too. Many at once cost little more than one."""
    packed = [text for text in texts if text.startswith(MARK)]
    body = "".join([text[2:] for text in packed]).encode("ascii")
    joined = b"".join(
        _groups(body[start : start + AT_ONCE]) for start in range(0, len(body), AT_ONCE)
    )
    ends = accumulate(((len(text) - 2) // DIGITS * BYTES for text in packed), initial=0)
    read = iter(
        joined[start : end - int(text[1])]
        for text, (start, end) in zip(packed, pairwise(ends), strict=True)
    )
    return [next(read) if text.startswith(MARK) else base64.b64decode(text) for text in texts]


def _groups(text: bytes) -> bytes:
    """Read groups of nine bytes."""
    count = len(text) // DIGITS
    first = VALUES[np.frombuffer(text, np.uint8)[::DIGITS]].astype(np.uint64)
    # Two digits at a time: a table of all pairs is quicker than arithmetic.
    pairs = np.ndarray((count, 5), "<u2", text, offset=1, strides=(DIGITS, 2))
    two = PAIRS.take(pairs.T)
    upper = (first * PAIR + two[0]) * FOUR + (two[1] * PAIR + two[2])
    low = (upper & ((1 << HALF) - 1)) * FOUR + (two[3] * PAIR + two[4])
    high = (upper >> HALF) * FOUR + (low >> HALF)
    groups = np.empty(count, GROUP)
    groups["top"], groups["middle"], groups["low"] = high >> HALF, high, low
    return groups.tobytes()


def _number(digits: npt.NDArray[np.uint8], base: int) -> Numbers:
    """Give the number that each row of digits stands for."""
    number = digits[:, 0].astype(np.uint64)
    for column in digits.T[1:]:
        number *= base
        number += column
    return number


def _digits(numbers: Numbers, count: int) -> npt.NDArray[np.uint64]:
    """Give so many digits of each number, the greatest first."""
    places = BASE ** np.arange(count - 1, -1, -1, dtype=np.uint64)
    return numbers[:, None] // places % BASE
