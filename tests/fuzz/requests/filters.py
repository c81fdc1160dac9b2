"""Filter strings from a grammar, some of them changed."""

from __future__ import annotations

import random

FIELDS = (
    "tags.tag_0", "tags.tag_1", "tags.tag_2", "tags.tag_3", "tags.other", "attributes.color",
    "attributes.kind", "category", "entity_id", "image_id", "width", "height", "size_bytes",
    "sharpness", "sha256", "create_time", "update_time",
)  # fmt: skip
OPERATORS = ("=", "!=", "<", "<=", ">", ">=", ":")
VALUES = (
    '"alpha"', "'beta'", "3", "-3", "2.5", "1e3", "true", "false", "*", '"Bag"', "Bag",
    '"2026-11-29T12:00:00Z"', '"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59.999999999Z"', '"i1"',
    "9223372036854775807", "9223372036854775808", "1e999", "-0", '""', '"\\""', '"\\u0000"', "NaN",
)  # fmt: skip
PIECES = (
    *OPERATORS,
    *VALUES,
    *FIELDS,
    "AND",
    "OR",
    "NOT",
    "(",
    ")",
    "(" * 300,
    "NOT " * 300,
    " ",
    "\0",
    ".",
    "-",
)


def text(random_: random.Random, depth: int = 0) -> str:
    """Return a filter string; empty ones and changed ones are among them."""
    if not depth and random_.random() < 0.3:
        return ""
    whole = _expression(random_, depth)
    if random_.random() < 0.8:
        return whole
    at = random_.randint(0, len(whole))
    return whole[:at] + random_.choice(PIECES) + whole[at + random_.choice((0, 0, 1, 5)) :]


def _expression(random_: random.Random, depth: int) -> str:
    kind = random_.random()
    if depth > 4 or kind < 0.6:
        return f"{random_.choice(FIELDS)} {random_.choice(OPERATORS)} {random_.choice(VALUES)}"
    if kind < 0.7:
        return f"NOT {_expression(random_, depth + 1)}"
    if kind < 0.8:
        return f"({_expression(random_, depth + 1)})"
    word = random_.choice((" AND ", " OR "))
    count = random_.choice((2, 3, 20 if depth == 0 else 2))
    return word.join(_expression(random_, depth + 1) for _ in range(count))
