"""Reads filter strings: a subset of AIP-160, with the place of every mistake.

    filter     = conjunction { "OR" conjunction }
    conjunction = term { "AND" term }
    term       = "NOT" term | "(" filter ")" | comparison
    comparison = field operator value | field ":" "*"

A recursive-descent parser over a list of tokens. Nesting and length are limited, so that no
string costs more than a millisecond or reaches the interpreter's stack limit; chains of AND and
OR are flat.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from imagesearch_services.common.types import Category, TagValue
from imagesearch_services.gateway.filters import (
    AllOf,
    AnyOf,
    Comparison,
    Filter,
    Not,
    Operator,
    filter_error,
)

MAX_BYTES = 4096
MAX_DEPTH = 16
"""Parentheses and NOTs inside one another; keeps the message to the Catalog well under protobuf's
own limit of 100 nested messages."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


class _Kind(enum.Enum):
    NAME = "a name"
    STRING = "a string"
    INTEGER = "an integer"
    FLOAT = "a number"
    OPERATOR = "an operator"
    OPEN = '"("'
    CLOSE = '")"'
    STAR = '"*"'
    END = "the end of the filter"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: _Kind
    text: str
    position: int

    def __str__(self) -> str:
        return self.kind.value if self.kind is _Kind.END else f'"{self.text}"'


_TOKEN = re.compile(
    r"""
      (?P<NAME>[^\W\d]\w*(?:\.\w+)*)
    | (?P<NUMBER>-?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<STRING>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<OPERATOR><=|>=|!=|=|<|>|:)
    | (?P<OPEN>\()
    | (?P<CLOSE>\))
    | (?P<STAR>\*)
    """,
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_SPACE = re.compile(r"[ \t\r\n]*")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "r": "\r", "t": "\t"}
_KEYWORDS = {"AND", "OR", "NOT"}

TAG_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)
_TIME = re.compile(
    r"(?P<seconds>\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?P<fraction>\.\d+)?"
    r"(?P<zone>[Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)

_EQUALITY = frozenset({Operator.EQUAL, Operator.NOT_EQUAL, Operator.HAS})
_ORDER = frozenset(
    {Operator.LESS, Operator.LESS_OR_EQUAL, Operator.GREATER, Operator.GREATER_OR_EQUAL}
)
_REAL = _ORDER | {Operator.EQUAL, Operator.HAS}
_ALL = _ORDER | _EQUALITY


class _FilterError(Exception):
    """What is wrong, and where."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position
        self.message = message


def parse_filter(text: str, *, field: str = "filter") -> Filter | None:
    """Read a filter string.

    Args:
        text: at most 4,096 bytes of UTF-8; nothing but white space takes everything.
        field: the request field that it stands in, for the error.

    Returns:
        The tree, or None where every image is taken.

    Raises:
        ServiceError: FILTER_INVALID with the position of the mistake, in characters from 0.
    """
    try:
        _check_length(text)
        return _Parser(_tokens(text)).parse()
    except _FilterError as error:
        raise filter_error(error.position, error.message, field=field) from None


def _check_length(text: str) -> None:
    if len(text) <= MAX_BYTES // 4:
        return
    encoded = text.encode()
    if len(encoded) > MAX_BYTES:
        position = len(encoded[:MAX_BYTES].decode(errors="ignore"))
        raise _FilterError(position, f"a filter has at most {MAX_BYTES} bytes, not {len(encoded)}")


def _tokens(text: str) -> list[_Token]:
    tokens = []
    position = _space(text, 0)
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise _unreadable(text, position)
        kind = found.lastgroup
        tokens.append(
            _number(found) if kind == "NUMBER" else _Token(_Kind[kind or ""], found[0], position)
        )
        position = _space(text, found.end())
    tokens.append(_Token(_Kind.END, "", len(text)))
    return tokens


def _space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _number(found: re.Match[str]) -> _Token:
    text = found[0]
    is_integer = text.lstrip("-").isdecimal()
    return _Token(_Kind.INTEGER if is_integer else _Kind.FLOAT, text, found.start())


def _unreadable(text: str, position: int) -> _FilterError:
    character = text[position]
    if character in "\"'":
        return _FilterError(position, "this string has no closing quote")
    if character in "&|!":
        return _FilterError(position, "write AND, OR and NOT as words")
    if not character.isascii():
        return _FilterError(position, f"{character!r} can stand only inside a quoted string")
    return _FilterError(position, f"{character!r} has no meaning here")


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0

    def parse(self) -> Filter | None:
        if self._peek().kind is _Kind.END:
            return None
        tree = self._filter(0)
        token = self._peek()
        if token.kind is not _Kind.END:
            raise _FilterError(token.position, _expected("AND, OR or the end of the filter", token))
        return tree

    def _filter(self, depth: int) -> Filter:
        return self._chain("OR", AnyOf, lambda: self._conjunction(depth))

    def _conjunction(self, depth: int) -> Filter:
        return self._chain("AND", AllOf, lambda: self._term(depth))

    def _chain(
        self,
        word: str,
        join: Callable[[tuple[Filter, ...]], Filter],
        member: Callable[[], Filter],
    ) -> Filter:
        members = [member()]
        while self._at_keyword(word):
            self._take()
            members.append(member())
        return join(tuple(members)) if len(members) > 1 else members[0]

    def _term(self, depth: int) -> Filter:
        token = self._peek()
        if depth >= MAX_DEPTH and (token.kind is _Kind.OPEN or self._at_keyword("NOT")):
            raise _FilterError(token.position, f"at most {MAX_DEPTH} levels of parentheses and NOT")
        if self._at_keyword("NOT"):
            self._take()
            return Not(self._term(depth + 1))
        if token.kind is _Kind.OPEN:
            self._take()
            inner = self._filter(depth + 1)
            close = self._take()
            if close.kind is not _Kind.CLOSE:
                raise _FilterError(close.position, _expected('AND, OR or ")"', close))
            return inner
        return self._comparison()

    def _comparison(self) -> Filter:
        name = self._take()
        if name.kind is not _Kind.NAME or name.text in _KEYWORDS:
            raise _FilterError(name.position, _expected("a field, NOT or (", name))
        field = _field(name)
        operator_token = self._take()
        if operator_token.kind is not _Kind.OPERATOR:
            raise _FilterError(
                operator_token.position, _expected("one of = != < <= > >= :*", operator_token)
            )
        operator = Operator(operator_token.text)
        if operator not in field.operators:
            raise _FilterError(
                operator_token.position,
                f"{name.text} takes {_operators(field.operators)}, not {operator_token.text}",
            )
        value_token = self._take()
        if operator is Operator.HAS:
            if value_token.kind is not _Kind.STAR:
                raise _FilterError(value_token.position, _expected('"*" after ":"', value_token))
            return Comparison(name.text, operator, position=name.position)
        value = field.read(value_token)
        allowed = field.operators & _operators_of(value, field)
        if operator not in allowed:
            raise _FilterError(
                operator_token.position,
                f"{name.text} with {_described(value)} takes {_operators(allowed)}, "
                f"not {operator_token.text}",
            )
        return Comparison(name.text, operator, value, name.position)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        if token.kind is not _Kind.END:
            self._next += 1
        return token

    def _at_keyword(self, word: str) -> bool:
        token = self._peek()
        return token.kind is _Kind.NAME and token.text == word


def _expected(what: str, found: _Token) -> str:
    hint = ""
    if found.kind is _Kind.NAME and found.text.upper() in _KEYWORDS and found.text.islower():
        hint = f'; write "{found.text.upper()}" in capitals'
    return f"expected {what}, found {found}{hint}"


@dataclass(frozen=True, slots=True)
class _Field:
    """What a field may be compared with, and how."""

    operators: frozenset[Operator]
    read: Callable[[_Token], TagValue]
    typed_by_value: bool = False
    """The value says which operators make sense: the tag's own type is the Catalog's to know."""


def _read_string(token: _Token) -> str:
    if token.kind is not _Kind.STRING:
        hint = f'; write "{token.text}" in quotes' if token.kind is _Kind.NAME else ""
        raise _FilterError(token.position, f"expected a string in quotes, found {token}{hint}")
    return _ESCAPE.sub(lambda found: _unescape(found, token), token.text[1:-1])


def _unescape(found: re.Match[str], token: _Token) -> str:
    sequence = found[1]
    if len(sequence) > 1:
        character = chr(int(sequence[1:], 16))
        if not "\ud800" <= character <= "\udfff":
            return character
    elif sequence in _ESCAPES:
        return _ESCAPES[sequence]
    position = token.position + 1 + found.start()
    raise _FilterError(position, r"""expected one of \" \' \\ \n \r \t \uXXXX (no surrogates)""")


def _read_integer(token: _Token) -> int:
    if token.kind is not _Kind.INTEGER:
        raise _FilterError(token.position, f"expected an integer, found {token}")
    # Python refuses to read absurdly long numbers; ours is refused before that.
    if len(token.text) > len(str(INT64_MIN)) and len(token.text.lstrip("-0")) > len(str(INT64_MAX)):
        raise _FilterError(token.position, "expected an integer of 64 bits")
    number = int(token.text)
    if not INT64_MIN <= number <= INT64_MAX:
        raise _FilterError(token.position, "expected an integer of 64 bits")
    return number


def _read_real(token: _Token) -> float:
    if token.kind not in {_Kind.INTEGER, _Kind.FLOAT}:
        raise _FilterError(token.position, f"expected a number, found {token}")
    number = float(token.text)
    if not math.isfinite(number):
        raise _FilterError(token.position, "expected a number that a double can hold")
    return number


def _read_tag(token: _Token) -> TagValue:
    if token.kind is _Kind.STRING:
        return _read_string(token)
    if token.kind is _Kind.INTEGER:
        return _read_integer(token)
    if token.kind is _Kind.FLOAT:
        return _read_real(token)
    if token.kind is _Kind.NAME and token.text in {"true", "false"}:
        return token.text == "true"
    hint = f'; write "{token.text}" in quotes' if token.kind is _Kind.NAME else ""
    raise _FilterError(
        token.position, f"expected a string in quotes, a number, true or false, found {token}{hint}"
    )


def _read_category(token: _Token) -> int:
    name = token.text if token.kind is _Kind.NAME else _read_string(token)
    try:
        return int(Category[name.upper()])
    except KeyError:
        known = ", ".join(category.name.title() for category in Category)
        raise _FilterError(token.position, f"expected one of {known}; found {token}") from None


def _read_time(token: _Token) -> float:
    found = _TIME.fullmatch(_read_string(token))
    if found is not None:
        # Digits beyond microseconds are more than the Catalog keeps.
        fraction = (found["fraction"] or ".0")[:7].ljust(7, "0")
        try:
            return datetime.fromisoformat(
                found["seconds"].upper() + fraction + found["zone"].upper()
            ).timestamp()
        except (ValueError, OverflowError):
            pass
    raise _FilterError(
        token.position, 'expected an RFC 3339 time in quotes, like "2025-06-30T12:00:00Z"'
    )


def _read_sha256(token: _Token) -> str:
    digest = _read_string(token)
    if not _SHA256.fullmatch(digest):
        raise _FilterError(token.position, "expected 64 hexadecimal digits in quotes")
    return digest.lower()


_INTEGER = _Field(_ALL, _read_integer)
_TIMESTAMP = _Field(_REAL, _read_time)
_STRING = _Field(_EQUALITY, _read_string)
_TAG = _Field(_ALL, _read_tag, typed_by_value=True)

_FIELDS = {
    "category": _Field(_EQUALITY, _read_category),
    "entity_id": _STRING,
    "image_id": _STRING,
    "width": _INTEGER,
    "height": _INTEGER,
    "size_bytes": _INTEGER,
    "sharpness": _Field(_REAL, _read_real),
    "sha256": _Field(_EQUALITY, _read_sha256),
    "create_time": _TIMESTAMP,
    "update_time": _TIMESTAMP,
}


def _field(name: _Token) -> _Field:
    if name.text in _FIELDS:
        return _FIELDS[name.text]
    family, dot, key = name.text.partition(".")
    if family in {"tags", "attributes"}:
        if not dot:
            raise _FilterError(name.position, f"{family} needs a name: {family}.NAME")
        if not TAG_NAME.fullmatch(key):
            raise _FilterError(
                name.position + len(family) + 1,
                "a name is 1 to 63 of a-z, A-Z, 0-9 and _, not beginning with a digit",
            )
        return _TAG if family == "tags" else _STRING
    known = ", ".join(("tags.NAME", "attributes.NAME", *_FIELDS))
    raise _FilterError(name.position, f'there is no field "{name.text}"; there are {known}')


def _operators_of(value: TagValue, field: _Field) -> frozenset[Operator]:
    if not field.typed_by_value:
        return field.operators
    if isinstance(value, bool | str):
        return _EQUALITY
    return _ALL if isinstance(value, int) else _REAL


def _operators(operators: frozenset[Operator]) -> str:
    return " ".join(
        ":*" if operator is Operator.HAS else operator.value
        for operator in Operator
        if operator in operators
    )


def _described(value: TagValue) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    return "an integer" if isinstance(value, int) else "a float"
