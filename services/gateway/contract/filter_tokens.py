"""Tokens of filter strings."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

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


class FilterSyntaxError(Exception):
    """Syntax error in a filter string, with its position in characters from 0."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position
        self.message = message


class Kind(enum.Enum):
    """Kinds of tokens, as named in errors."""

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
class Token:
    """A token and its position in the filter string, in characters from 0."""

    kind: Kind
    text: str
    position: int

    def __str__(self) -> str:
        return self.kind.value if self.kind is Kind.END else f'"{self.text}"'


def tokenize(text: str) -> list[Token]:
    """Return the tokens of a filter string, followed by a token of the kind END.

    Raises:
        FilterSyntaxError: the string contains characters that are not a token.
    """
    tokens = []
    position = _space(text, 0)
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise _unreadable(text, position)
        kind = found.lastgroup
        tokens.append(
            _number(found) if kind == "NUMBER" else Token(Kind[kind or ""], found[0], position)
        )
        position = _space(text, found.end())
    tokens.append(Token(Kind.END, "", len(text)))
    return tokens


def _space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _number(found: re.Match[str]) -> Token:
    text = found[0]
    is_integer = text.lstrip("-").isdecimal()
    return Token(Kind.INTEGER if is_integer else Kind.FLOAT, text, found.start())


def _unreadable(text: str, position: int) -> FilterSyntaxError:
    character = text[position]
    if character in "\"'":
        return FilterSyntaxError(position, "string without closing quote")
    if character in "&|!":
        return FilterSyntaxError(position, "write AND, OR and NOT as words")
    if not character.isascii():
        return FilterSyntaxError(position, f"{character!r} is valid only inside a quoted string")
    return FilterSyntaxError(position, f"unexpected character {character!r}")
