"""Base-94 encoding of binary payload values, which the engines store as JSON strings.

Nine bytes take 11 characters, one less than in base64, since 256 ** 9 < 94 ** 11. The 94 digits are
the ASCII characters that need no escape in JSON (RFC 8259). `decode` also reads the base64 of older
entries, which never begins with the mark "~".
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

MARK = "~"
"""First character of an encoded text. The second character is the number of padding bytes."""
BASE = 94
BASE_4 = BASE**4
BYTES, DIGITS = 9, 11
"""Size of a group: in bytes, and in base-94 digits, which are one character each."""
CHUNK_CHARACTERS = DIGITS * 4096
"""Characters decoded at once: intermediate arrays fit in the processor's cache."""
LOW_BITS = 32
"""Bits of the lower part of a group; the upper part has 40."""
GROUP = np.dtype([("top", "u1"), ("middle", ">u4"), ("low", ">u4")])
"""Layout of a group's nine bytes. An assignment to a field discards the bits that do not fit."""

ALPHABET = np.array([code for code in range(0x20, 0x80) if chr(code) not in '"\\'], np.uint8)
VALUES = np.zeros(256, np.uint8)
VALUES[ALPHABET] = np.arange(BASE)

BASE_2 = BASE**2
PAIRS = (VALUES.astype(np.uint64) * BASE + VALUES[:, None].astype(np.uint64)).ravel()
"""Values of all pairs of digits, indexed by the two characters as a little-endian number."""

Numbers = npt.NDArray[np.uint64]


def encode(raw: bytes) -> str:
    """Return bytes as base-94 text."""
    padding = -len(raw) % BYTES
    groups = np.frombuffer(raw + bytes(padding), np.uint8).reshape(-1, BYTES)
    low, high = _number(groups[:, 5:], 256), _number(groups[:, :5], 256)
    digits = np.empty((len(groups), DIGITS), np.uint8)
    # Two long divisions by 94 ** 4 leave the first three digits.
    for first in (7, 3):
        high, remainder = np.divmod(high, BASE_4)
        low, remainder = np.divmod((remainder << LOW_BITS) | low, BASE_4)
        digits[:, first : first + 4] = _digits(remainder, 4)
    digits[:, :3] = _digits(low, 3)
    return f"{MARK}{padding}{ALPHABET[digits].tobytes().decode('ascii')}"


def decode(texts: Sequence[str]) -> list[bytes]:
    """Decode base-94 or base64 texts. A call with many texts takes little longer than with one."""
    encoded = [text for text in texts if text.startswith(MARK)]
    body = "".join([text[2:] for text in encoded]).encode("ascii")
    joined = b"".join(
        _decode_groups(body[start : start + CHUNK_CHARACTERS])
        for start in range(0, len(body), CHUNK_CHARACTERS)
    )
    ends = accumulate(((len(text) - 2) // DIGITS * BYTES for text in encoded), initial=0)
    decoded = iter(
        joined[start : end - int(text[1])]
        for text, (start, end) in zip(encoded, pairwise(ends), strict=True)
    )
    return [next(decoded) if text.startswith(MARK) else base64.b64decode(text) for text in texts]


def _decode_groups(text: bytes) -> bytes:
    count = len(text) // DIGITS
    first = VALUES[np.frombuffer(text, np.uint8)[::DIGITS]].astype(np.uint64)
    # Decode two digits at a time: a lookup in a table of all pairs is faster than arithmetic.
    pairs = np.ndarray((count, 5), "<u2", text, offset=1, strides=(DIGITS, 2))
    values = PAIRS.take(pairs.T)
    upper = (first * BASE_2 + values[0]) * BASE_4 + (values[1] * BASE_2 + values[2])
    low = (upper & ((1 << LOW_BITS) - 1)) * BASE_4 + (values[3] * BASE_2 + values[4])
    high = (upper >> LOW_BITS) * BASE_4 + (low >> LOW_BITS)
    groups = np.empty(count, GROUP)
    groups["top"], groups["middle"], groups["low"] = high >> LOW_BITS, high, low
    return groups.tobytes()


def _number(digits: npt.NDArray[np.uint8], base: int) -> Numbers:
    """Convert each row of digits, [row, digit], to a number. The first digit is the highest."""
    number = digits[:, 0].astype(np.uint64)
    for column in digits.T[1:]:
        number *= base
        number += column
    return number


def _digits(numbers: Numbers, count: int) -> npt.NDArray[np.uint64]:
    """Return the lowest `count` digits of each number as [row, digit], the highest digit first."""
    places = BASE ** np.arange(count - 1, -1, -1, dtype=np.uint64)
    return numbers[:, None] // places % BASE
