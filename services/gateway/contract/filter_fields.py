"""Fields of filters: the operators that each supports, and the parser of its values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from imagesearch_services.common.types import Category, TagValue
from imagesearch_services.gateway.contract.filter_tokens import FilterSyntaxError, Kind, Token
from imagesearch_services.gateway.filters import Operator

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

TAG_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)
"""Pattern of tag and attribute names."""
_TIME = re.compile(
    r"(?P<seconds>\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?P<fraction>\.\d+)?"
    r"(?P<zone>[Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)

_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "r": "\r", "t": "\t"}

EQUALITY = frozenset({Operator.EQUAL, Operator.NOT_EQUAL, Operator.HAS})
ORDER = frozenset(
    {Operator.LESS, Operator.LESS_OR_EQUAL, Operator.GREATER, Operator.GREATER_OR_EQUAL}
)
REAL = ORDER | {Operator.EQUAL, Operator.HAS}
ALL = ORDER | EQUALITY


@dataclass(frozen=True, slots=True)
class Field:
    """A filterable field: the operators that it supports, and the parser of its values."""

    operators: frozenset[Operator]
    read: Callable[[Token], TagValue]
    typed_by_value: bool = False
    """Whether the type of the value determines the operators. Only the Catalog knows the types of
    tags."""

    def operators_for(self, value: TagValue) -> frozenset[Operator]:
        """Return the operators that the field supports with this value."""
        if not self.typed_by_value:
            return self.operators
        if isinstance(value, bool | str):
            return EQUALITY
        return ALL if isinstance(value, int) else REAL


def find_field(name: Token) -> Field:
    """Return the field of a name.

    Raises:
        FilterSyntaxError: the field does not exist.
    """
    if name.text in _FIELDS:
        return _FIELDS[name.text]
    family, dot, key = name.text.partition(".")
    if family in {"tags", "attributes"}:
        if not dot:
            raise FilterSyntaxError(name.position, f"{family} needs a name: {family}.NAME")
        if not TAG_NAME.fullmatch(key):
            raise FilterSyntaxError(
                name.position + len(family) + 1,
                'a name has 1 to 63 characters of a-z, A-Z, 0-9 and "_", not starting with a digit',
            )
        return _TAG if family == "tags" else _STRING
    known = ", ".join(("tags.NAME", "attributes.NAME", *_FIELDS))
    raise FilterSyntaxError(name.position, f'unknown field "{name.text}"; the fields are {known}')


def _read_string(token: Token) -> str:
    if token.kind is not Kind.STRING:
        hint = f'; write "{token.text}" in quotes' if token.kind is Kind.NAME else ""
        raise FilterSyntaxError(token.position, f"expected a string in quotes, found {token}{hint}")
    return _ESCAPE.sub(lambda found: _unescape(found, token), token.text[1:-1])


def _unescape(found: re.Match[str], token: Token) -> str:
    sequence = found[1]
    if len(sequence) > 1:
        character = chr(int(sequence[1:], 16))
        if not "\ud800" <= character <= "\udfff":
            return character
    elif sequence in _ESCAPES:
        return _ESCAPES[sequence]
    position = token.position + 1 + found.start()
    raise FilterSyntaxError(
        position, r"""expected one of \" \' \\ \n \r \t \uXXXX (no surrogates)"""
    )


def _read_integer(token: Token) -> int:
    if token.kind is not Kind.INTEGER:
        raise FilterSyntaxError(token.position, f"expected an integer, found {token}")
    # int() raises ValueError for very long numbers.
    if len(token.text) > len(str(INT64_MIN)) and len(token.text.lstrip("-0")) > len(str(INT64_MAX)):
        raise FilterSyntaxError(token.position, "expected a 64-bit integer")
    number = int(token.text)
    if not INT64_MIN <= number <= INT64_MAX:
        raise FilterSyntaxError(token.position, "expected a 64-bit integer")
    return number


def _read_real(token: Token) -> float:
    if token.kind not in {Kind.INTEGER, Kind.FLOAT}:
        raise FilterSyntaxError(token.position, f"expected a number, found {token}")
    number = float(token.text)
    if not math.isfinite(number):
        raise FilterSyntaxError(token.position, "expected a number within the range of a double")
    return number


def _read_tag(token: Token) -> TagValue:
    if token.kind is Kind.STRING:
        return _read_string(token)
    if token.kind is Kind.INTEGER:
        return _read_integer(token)
    if token.kind is Kind.FLOAT:
        return _read_real(token)
    if token.kind is Kind.NAME and token.text in {"true", "false"}:
        return token.text == "true"
    hint = f'; write "{token.text}" in quotes' if token.kind is Kind.NAME else ""
    raise FilterSyntaxError(
        token.position, f"expected a string in quotes, a number, true or false, found {token}{hint}"
    )


def _read_category(token: Token) -> int:
    name = token.text if token.kind is Kind.NAME else _read_string(token)
    try:
        return int(Category[name.upper()])
    except KeyError:
        known = ", ".join(category.name.title() for category in Category)
        raise FilterSyntaxError(token.position, f"expected one of {known}; found {token}") from None


def _read_time(token: Token) -> float:
    found = _TIME.fullmatch(_read_string(token))
    if found is not None:
        # The Catalog stores microseconds.
        fraction = (found["fraction"] or ".0")[:7].ljust(7, "0")
        try:
            return datetime.fromisoformat(
                found["seconds"].upper() + fraction + found["zone"].upper()
            ).timestamp()
        except (ValueError, OverflowError):
            pass
    raise FilterSyntaxError(
        token.position, 'expected an RFC 3339 time in quotes, like "2025-06-30T12:00:00Z"'
    )


def _read_sha256(token: Token) -> str:
    digest = _read_string(token)
    if not _SHA256.fullmatch(digest):
        raise FilterSyntaxError(token.position, "expected 64 hexadecimal digits in quotes")
    return digest.lower()


_INTEGER = Field(ALL, _read_integer)
_TIMESTAMP = Field(REAL, _read_time)
_STRING = Field(EQUALITY, _read_string)
_TAG = Field(ALL, _read_tag, typed_by_value=True)

_FIELDS = {
    "category": Field(EQUALITY, _read_category),
    "entity_id": _STRING,
    "image_id": _STRING,
    "width": _INTEGER,
    "height": _INTEGER,
    "size_bytes": _INTEGER,
    "sharpness": Field(REAL, _read_real),
    "sha256": Field(EQUALITY, _read_sha256),
    "create_time": _TIMESTAMP,
    "update_time": _TIMESTAMP,
}
