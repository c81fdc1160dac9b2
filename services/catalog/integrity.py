"""Checksums of stored payloads, vectors and thumbnails, which no engine checks itself.

A payload has up to three checks, all with a format version. Payloads of earlier versions have none
and stay readable.

- `checksum`: CRC-32 of all keys but the features. It also covers the other two checks.
- `features_crc`: CRC-32 of the features, which are read separately.
- `projections`: by space. A dense vector is projected onto a few random directions, because a
  quantizing engine returns it with an error of up to 0.012 (8 bits per component), and every engine
  normalizes it. A change that moves the unit vector by three times that error is found; smaller
  ones are within the error. A sparse vector has a CRC-32 of its indices and its float16 values.

An engine may change a float with more than 15 digits in the last one (its parser of JSON does not
round correctly), so the checksum covers 12 digits of these, or fewer if neighbours differ there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from imagesearch_services.catalog.model import VectorData, VectorSpace
from imagesearch_services.catalog.storage import (
    CHECKSUM_KEY,
    FEATURES_CHECKSUM_KEY,
    FEATURES_KEY,
    UNREADABLE_KEY,
    Payload,
    Record,
)
from imagesearch_services.common.logs import logger
from imagesearch_services.common.types import SparseVector

FORMAT = 1
"""Version of the checks. A start with data of a later version is refused, so others are damage."""

VECTORS_KEY = "projections"

MAX_DIGITS = 12
"""Significant digits that the checksum covers of a float with many digits."""
LAST_DIGITS = 2
"""Maximum number of floats by which an engine may change a float."""
EXACT_INTEGERS, EXACT_POWERS_OF_TEN = 2**53, 22
"""Limits up to which all integers and powers of ten are exact floats."""
SHORT_TEXT = 16
"""Length of a number's text, with its point, up to which it is parsed exactly."""

COMPACT_DIRECTIONS, DIRECTIONS = 16, 8
"""Directions onto which a compact dense vector, or another one, is projected."""
COMPACT_TOLERANCE, TOLERANCE = 0.0074, 1e-10
"""Maximum sum of the squared differences of the projections. For vectors that differ by an error e,
the sum is |e|² times a chi-square variable. Exceeded by chance for one in 10⁶ compact vectors with
the largest error, 0.0116."""


def seal(payload: Payload) -> Payload:
    """Return a payload with its checksums; those of features that it has already stay."""
    sealed = {key: value for key, value in payload.items() if key != CHECKSUM_KEY}
    features = sealed.get(FEATURES_KEY)
    if features is not None and FEATURES_CHECKSUM_KEY not in sealed:
        sealed[FEATURES_CHECKSUM_KEY] = [FORMAT, zlib.crc32(features.encode())]
    digits = _common_digits(sealed)
    sealed[CHECKSUM_KEY] = [FORMAT, digits, _checksum(sealed, digits)]
    return sealed


def is_intact(payload: Payload) -> bool:
    """Return whether a payload, read with or without the features, matches its checksum.

    A payload without any check is of an earlier version, and counts as intact.
    """
    if UNREADABLE_KEY in payload:
        return False
    check = payload.get(CHECKSUM_KEY)
    if check is None:
        return VECTORS_KEY not in payload and FEATURES_CHECKSUM_KEY not in payload
    try:
        version, digits, checksum = check
        intact = version == FORMAT and checksum == _checksum(payload, digits)
    except (TypeError, ValueError):
        return False
    return intact and has_intact_features(payload)


def intact_payloads(records: Iterable[Record]) -> list[Payload]:
    """Return the payloads of metadata points, without those that fail their checksum."""
    payloads: list[Payload] = []
    for record in records:
        if is_intact(record.payload):
            payloads.append(record.payload)
        else:
            logger().error("metadata.point_damaged", uid=record.uid.hex())
    return payloads


def has_intact_features(payload: Payload) -> bool:
    """Return whether the features of a payload match their checksum, if it has both."""
    if UNREADABLE_KEY in payload:
        return False
    features, check = payload.get(FEATURES_KEY), payload.get(FEATURES_CHECKSUM_KEY)
    if features is None or check is None:
        return True
    try:
        version, checksum = check
        return bool(version == FORMAT and checksum == zlib.crc32(features.encode()))
    except (AttributeError, TypeError, ValueError):
        return False


def vector_check(space: VectorSpace, vector: VectorData) -> str:
    """Return what is stored in order to check a vector later."""
    if isinstance(vector, SparseVector):
        return f"{FORMAT}{_sparse_checksum(vector):08x}"
    projected = _project(vector, compact=space.compact)
    kind = "<f2" if space.compact else "<f4"
    return f"{FORMAT}{base64.b64encode(projected.astype(kind).tobytes()).decode('ascii')}"


def damaged_vectors(
    spaces: Mapping[str, VectorSpace], payload: Payload, vectors: Mapping[str, VectorData]
) -> list[str]:
    """Return the spaces whose vectors do not match the checks of the payload."""
    checks = payload.get(VECTORS_KEY, {})
    return [
        name
        for name, check in checks.items()
        if name in spaces and not _matches(spaces[name], check, vectors.get(name))
    ]


def _matches(space: VectorSpace, check: str, vector: VectorData | None) -> bool:
    if vector is None or not check.startswith(str(FORMAT)):
        return False
    if isinstance(vector, SparseVector):
        return check == vector_check(space, vector)
    kind, tolerance = ("<f2", COMPACT_TOLERANCE) if space.compact else ("<f4", TOLERANCE)
    try:
        stored = np.frombuffer(base64.b64decode(check[1:]), kind).astype(np.float64)
    except ValueError:
        return False
    found = _project(vector, compact=space.compact)
    if stored.shape != found.shape:
        return False
    return bool(np.square(stored - found).sum() <= tolerance)


def _project(vector: bytes, *, compact: bool) -> npt.NDArray[np.float64]:
    """Return the projections of the normalized vector onto random directions."""
    values = np.frombuffer(vector, "<f4").astype(np.float64)
    if not np.isfinite(values).all():
        return np.full(1, np.nan)
    norm = np.linalg.norm(values)
    count = COMPACT_DIRECTIONS if compact else DIRECTIONS
    unit = values / norm if norm else values
    return np.asarray(_directions(len(values), count).T @ unit, dtype=np.float64)


@lru_cache(maxsize=32)
def _directions(dimensions: int, count: int) -> npt.NDArray[np.float64]:
    """Return random signs, [dimensions, count], the same in every version. Never change them."""
    size = -(-dimensions * count // 8)
    seed = f"imagesearch vector check {dimensions} {count}".encode()
    bits = np.unpackbits(np.frombuffer(hashlib.shake_128(seed).digest(size), np.uint8))
    signs: npt.NDArray[np.float64] = bits[: dimensions * count].astype(np.float64) * 2.0 - 1.0
    return signs.reshape(dimensions, count)


def _sparse_checksum(vector: SparseVector) -> int:
    order = np.argsort(np.asarray(vector.indices, "<u4"), kind="stable")
    indices = np.asarray(vector.indices, "<u4")[order]
    with np.errstate(over="ignore"):
        values = np.asarray(vector.values, "<f4").astype("<f2")[order]
    return zlib.crc32(values.tobytes(), zlib.crc32(indices.tobytes()))


def _checksum(payload: Payload, digits: int) -> int:
    covered = {
        key: value for key, value in payload.items() if key not in {CHECKSUM_KEY, FEATURES_KEY}
    }
    text = json.dumps(_rounded(covered, digits), sort_keys=True, separators=(",", ":"))
    return zlib.crc32(text.encode())


def _rounded(value: Any, digits: int) -> Any:
    """Return a JSON-like value with its floats as the text that the checksum covers."""
    if isinstance(value, float):
        return _float_text(value, digits)
    if isinstance(value, dict):
        return {key: _rounded(member, digits) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(member, digits) for member in value]
    return value


def _float_text(number: float, digits: int) -> str:
    if digits:
        return format(number, f".{digits}g")
    return repr(number) if _is_parsed_exactly(number) else format(number, f".{MAX_DIGITS}g")


def _is_parsed_exactly(number: float) -> bool:
    """Return whether every parser reads the shortest text of a number exactly.

    That holds if its digits are an exact float and its power of ten is one, too: one rounding
    remains (Clinger, "How to read floating point numbers accurately", 1990).
    """
    text = repr(number)
    if len(text) <= SHORT_TEXT and text[-1].isdigit() and "e" not in text:
        return True
    mantissa, _, exponent = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    if not whole.isdigit():
        return False
    scale = int(exponent or 0) - len(fraction)
    return int(whole + fraction) < EXACT_INTEGERS and abs(scale) <= EXACT_POWERS_OF_TEN


def _common_digits(payload: Payload) -> int:
    """Return how many digits of each float to cover so that changed last digits do not matter.

    0: all digits of floats that are parsed exactly, and `MAX_DIGITS` of others.
    """
    floats = list(_floats(payload))
    if all(_is_parsed_exactly(number) or _is_stable(number, 0) for number in floats):
        return 0
    return next(
        (
            digits
            for digits in range(MAX_DIGITS, 1, -1)
            if all(_is_stable(number, digits) for number in floats)
        ),
        1,
    )


def _is_stable(number: float, digits: int) -> bool:
    text = _float_text(number, digits)
    for direction in (math.inf, -math.inf):
        neighbour = number
        for _ in range(LAST_DIGITS):
            neighbour = math.nextafter(neighbour, direction)
            if _float_text(neighbour, digits) != text:
                return False
    return True


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for member in value.values():
            yield from _floats(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _floats(member)
