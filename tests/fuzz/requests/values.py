"""Values of request fields: plausible ones by their name, and hostile ones by their type."""

from __future__ import annotations

import functools
import random
import sys
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from PIL import Image

from tests.fuzz.pictures.mutators import mutated, mutated_bytes
from tests.fuzz.pictures.seeds import encoded, seeds
from tests.fuzz.requests import filters
from tests.fuzz.requests.known import Known

Types = FieldDescriptor
INTEGERS = (
    0, 1, -1, 2, 10, 100, 101, 1000, 1001, 65_536, (1 << 31) - 1, -(1 << 31), 1 << 31,
    (1 << 32) - 1,
    (1 << 53) + 1, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1,
)  # fmt: skip
FLOATS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e-320, 3.4e38, 1e308, float("inf"), float("-inf"),
    float("nan"), sys.float_info.max,
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "a\0b", "\n", "\x7f", "\u202e", "\ufeff", "ß", "日本語", "👩‍👩‍👧", "e\u0301",
    "\U0010ffff", "%s%n",
    "../../etc/passwd", "libraries/", "libraries/a/images/", "libraries//images/x", "null", "-",
    "*",
    "'", '"', "\\", "a" * 63, "a" * 64, "a" * 255, "a" * 256, "é" * 128, "a" * 4097, "x" * 100_000,
)  # fmt: skip
INTEGER_RANGES = {
    Types.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    Types.TYPE_SINT32: (-(1 << 31), (1 << 31) - 1),
    Types.TYPE_SFIXED32: (-(1 << 31), (1 << 31) - 1),
    Types.TYPE_UINT32: (0, (1 << 32) - 1),
    Types.TYPE_FIXED32: (0, (1 << 32) - 1),
    Types.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    Types.TYPE_SINT64: (-(1 << 63), (1 << 63) - 1),
    Types.TYPE_SFIXED64: (-(1 << 63), (1 << 63) - 1),
    Types.TYPE_UINT64: (0, (1 << 64) - 1),
    Types.TYPE_FIXED64: (0, (1 << 64) - 1),
    Types.TYPE_ENUM: (-(1 << 31), (1 << 31) - 1),
}
TAGS = tuple(f"tag_{number}" for number in range(8))
PATHS = (
    "display_name", "description", "capacity", "thumbnails_disabled", "entity_id", "category",
    "tags",
    "custom_content", *(f"tags.{name}" for name in TAGS),
)  # fmt: skip
MEDIA_TYPES = ("", "image/png", "image/jpeg", "image/webp", "text/plain")
SPACES = ("sscd@1", "sscd@1", "product@2")


@functools.cache
def pictures() -> dict[str, list[bytes]]:
    return seeds()


@functools.cache
def photos() -> list[bytes]:
    """Return noise that models accept as pictures."""
    noise = np.random.default_rng(1).integers(0, 255, (12, 6, 8, 3), np.uint8)
    images = [Image.fromarray(pixels).resize((160, 120)) for pixels in noise]
    return [encoded(image, "JPEG", quality=60) for image in images]


def picture(random_: random.Random) -> bytes:
    kind = random_.random()
    if kind < 0.45:
        return random_.choice(photos())
    if kind < 0.6:
        return random_.choice(random_.choice(list(pictures().values())))
    return mutated(pictures(), random_)[1]


def hostile(field: Any, random_: random.Random) -> Any:
    """Return a value at the border of what the type of a field can hold."""
    match field.type:
        case Types.TYPE_BOOL:
            return random_.random() < 0.5
        case Types.TYPE_FLOAT | Types.TYPE_DOUBLE:
            return random_.choice(FLOATS)
        case Types.TYPE_BYTES:
            sizes = (b"", b"\0", random_.randbytes(16), bytes(100_000), picture(random_))
            return random_.choice(sizes)
        case Types.TYPE_STRING if random_.random() < 0.5:
            return random_.choice(TEXTS)
        case Types.TYPE_STRING:
            letters = (*range(1, 256), 0x3042, 0x1F600)
            return "".join(chr(random_.choice(letters)) for _ in range(random_.randrange(40)))
    low, high = INTEGER_RANGES[field.type]
    return min(max(random_.choice(INTEGERS), low), high)


def plausible(  # noqa: PLR0911  # one for each kind of field
    field: Any, known: Known, random_: random.Random
) -> Any:
    """Return a value that a caller might send in a field of this name."""
    message = field.containing_type.name
    if field.name == "name":
        return _name(message, known, random_)
    if field.name == "library_id" and message in {"CreateLibraryRequest", "Library"}:
        return f"{'own' if message == 'Library' else 'fuzz'}-{random_.randrange(6)}"
    if field.name == "values" and field.type == Types.TYPE_BYTES:
        return known.choose("vector", random_) or np.ones(8, np.float32).tobytes()
    if field.name in BY_NAME:
        value = BY_NAME[field.name](known, random_)
        return (
            value.hex() if field.type == Types.TYPE_STRING and isinstance(value, bytes) else value
        )
    match field.type:
        case Types.TYPE_ENUM:
            return random_.choice(field.enum_type.values).number
        case Types.TYPE_BOOL:
            return random_.random() < 0.5
        case Types.TYPE_FLOAT | Types.TYPE_DOUBLE:
            return random_.choice((0.0, 0.1, 0.5, 0.9, 1.0, random_.random()))
        case Types.TYPE_BYTES:
            return random_.randbytes(random_.choice((4, 16, 64)))
        case Types.TYPE_STRING:
            return random_.choice(("alpha", "beta", "gamma", ""))
    return random_.choice((0, 1, 2, 5, 10, 50))


def _name(message: str, known: Known, random_: random.Random) -> str:
    if message not in {"Image", "Library"} and not message.endswith("Request"):
        return random_.choice(TEXTS[:10])
    return (_image if "Image" in message or "Thumbnail" in message else _library)(known, random_)


def _library(known: Known, random_: random.Random) -> str:
    return known.choose("library_name", random_) or "libraries/fuzz-0"


def _image(known: Known, random_: random.Random) -> str:
    return known.choose("image_name", random_) or "libraries/fuzz-0/images/i0"


def _image_id(known: Known, random_: random.Random) -> str:
    chosen = known.choose("image_id", random_) if random_.random() < 0.3 else None
    return chosen or f"i{random_.randrange(40)}"


def _token(known: Known, random_: random.Random) -> str:
    token = known.choose("next_page_token", random_) or ""
    if random_.random() < 0.8:
        return token if random_.random() < 0.2 else ""
    changed = mutated_bytes(token.encode(), random_)[:2000]
    return changed.decode("ascii", "ignore")


def _features(known: Known, random_: random.Random) -> bytes:
    features = known.choose("features", random_) or b""
    return features if random_.random() < 0.6 else mutated_bytes(features, random_)


def _thumbnail(known: Known, random_: random.Random) -> bytes:
    return known.choose("thumbnail", random_) or random_.choice(photos())


def _space(known: Known, random_: random.Random) -> str:
    return random_.choice((known.choose("space", random_) or "", *SPACES))


def _request_id(_: Known, random_: random.Random) -> str:
    return random_.choice(("", "", f"r{random_.randrange(9)}", random_.randbytes(8).hex()))


BY_NAME: dict[str, Any] = {
    "parent": _library,
    "image_name": _image,
    "names": _image,
    "name_a": _image,
    "name_b": _image,
    "image_id": _image_id,
    "image_ids": _image_id,
    "image_id_a": _image_id,
    "image_id_b": _image_id,
    "library_id": lambda known, random_: (
        known.choose("library_id", random_) or _library(known, random_).partition("/")[2]
    ),
    "library_uid": lambda known, random_: (
        (known.choose("library_uid", random_) if random_.random() < 0.3 else "") or ""
    ),
    "uid": lambda known, random_: known.choose("uid", random_) or random_.randbytes(16),
    "uids": lambda known, random_: known.choose("uid", random_) or random_.randbytes(16),
    "page_token": _token,
    "page_size": lambda _, random_: random_.choice((0, 1, 2, 3, 5, 100)),
    "filter": lambda _, random_: filters.text(random_),
    "field": lambda _, random_: random_.choice(filters.FIELDS),
    "content": lambda _, random_: picture(random_),
    "features": _features,
    "query_features": _features,
    "thumbnail": _thumbnail,
    "space": lambda known, random_: known.choose("space", random_) or random_.choice(SPACES),
    "spaces": _space,
    "first": lambda _, random_: random_.choice((0, 0, 1, 2)),
    "second": lambda _, random_: random_.choice((0, 1, 1, 2)),
    "regional_space": lambda known, random_: known.choose("space", random_) or "",
    "paths": lambda _, random_: random_.choice(PATHS),
    "key": lambda _, random_: random_.choice(TAGS),
    "request_id": _request_id,
    "request_ids": _request_id,
    "media_type": lambda _, random_: random_.choice(MEDIA_TYPES),
    "x_min": lambda _, random_: random_.uniform(-10, 8),
    "y_min": lambda _, random_: random_.uniform(-10, 8),
    "x_max": lambda _, random_: random_.uniform(60, 400),
    "y_max": lambda _, random_: random_.uniform(60, 400),
    "max_side_px": lambda _, random_: random_.choice((0, 16, 320, 1024)),
    "thumbnail_max_side_px": lambda _, random_: random_.choice((0, 16, 320)),
    "dimensions": lambda _, random_: random_.choice((0, 8, 8, 16)),
    "capacity": lambda _, random_: random_.choice((0, 0, 100, 1)),
    "min_score": lambda _, random_: random_.choice((0.0, 0.5, 0.9)),
    "max_false_positive_rate": lambda _, random_: random_.choice((1e-6, 1e-3, 0.5)),
}  # fmt: skip
"""Plausible values by the name of the field."""
