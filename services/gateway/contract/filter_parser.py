"""Parser of filter strings: a subset of AIP-160. Errors include their position.

    filter      = conjunction { "OR" conjunction }
    conjunction = term { "AND" term }
    term        = "NOT" term | "(" filter ")" | comparison
    comparison  = field operator value | field ":" "*"

A recursive-descent parser over a list of tokens. Length and nesting are limited, so that parsing
takes at most a millisecond and stays within the stack limit of the interpreter. Chains of AND and
OR are flat.
"""

from __future__ import annotations

from collections.abc import Callable

from imagesearch_services.common.types import TagValue
from imagesearch_services.gateway.contract.filter_fields import find_field
from imagesearch_services.gateway.contract.filter_tokens import (
    FilterSyntaxError,
    Kind,
    Token,
    tokenize,
)
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
"""Maximum bytes of a filter string in UTF-8."""
MAX_DEPTH = 16
"""Maximum depth of nested parentheses and NOTs. It keeps messages to the Catalog well below the
limit of protobuf, 100 nested messages."""

_KEYWORDS = {"AND", "OR", "NOT"}


def parse_filter(text: str, *, field: str = "filter") -> Filter | None:
    """Parse a filter string.

    Args:
        text: filter string, at most `MAX_BYTES` in UTF-8.
        field: request field of the filter, for errors.

    Returns:
        The syntax tree, or None for a filter of white space, which matches all images.

    Raises:
        ServiceError: FILTER_INVALID with the position of the error, in characters from 0.
    """
    try:
        _check_length(text)
        return _Parser(tokenize(text)).parse()
    except FilterSyntaxError as error:
        raise filter_error(error.position, error.message, field=field) from None


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._next = 0

    def parse(self) -> Filter | None:
        if self._peek().kind is Kind.END:
            return None
        tree = self._filter(0)
        token = self._peek()
        if token.kind is not Kind.END:
            raise FilterSyntaxError(
                token.position, _expectation("AND, OR or the end of the filter", token)
            )
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
        if depth >= MAX_DEPTH and (token.kind is Kind.OPEN or self._at_keyword("NOT")):
            raise FilterSyntaxError(
                token.position, f"nested deeper than {MAX_DEPTH} levels of parentheses and NOT"
            )
        if self._at_keyword("NOT"):
            self._take()
            return Not(self._term(depth + 1))
        if token.kind is Kind.OPEN:
            self._take()
            inner = self._filter(depth + 1)
            close = self._take()
            if close.kind is not Kind.CLOSE:
                raise FilterSyntaxError(close.position, _expectation('AND, OR or ")"', close))
            return inner
        return self._comparison()

    def _comparison(self) -> Filter:
        name = self._take()
        if name.kind is not Kind.NAME or name.text in _KEYWORDS:
            raise FilterSyntaxError(name.position, _expectation("a field, NOT or (", name))
        field = find_field(name)
        operator_token = self._take()
        if operator_token.kind is not Kind.OPERATOR:
            raise FilterSyntaxError(
                operator_token.position, _expectation("one of = != < <= > >= :*", operator_token)
            )
        operator = Operator(operator_token.text)
        if operator not in field.operators:
            raise FilterSyntaxError(
                operator_token.position,
                f"{name.text} supports {_operator_list(field.operators)}, "
                f"not {operator_token.text}",
            )
        value_token = self._take()
        if operator is Operator.HAS:
            if value_token.kind is not Kind.STAR:
                raise FilterSyntaxError(
                    value_token.position, _expectation('"*" after ":"', value_token)
                )
            return Comparison(name.text, operator, position=name.position)
        value = field.read(value_token)
        allowed = field.operators & field.operators_for(value)
        if operator not in allowed:
            raise FilterSyntaxError(
                operator_token.position,
                f"{name.text} with {_type_of(value)} supports {_operator_list(allowed)}, "
                f"not {operator_token.text}",
            )
        return Comparison(name.text, operator, value, name.position)

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        if token.kind is not Kind.END:
            self._next += 1
        return token

    def _at_keyword(self, word: str) -> bool:
        token = self._peek()
        return token.kind is Kind.NAME and token.text == word


def _check_length(text: str) -> None:
    if len(text) <= MAX_BYTES // 4:
        return
    encoded = text.encode()
    if len(encoded) > MAX_BYTES:
        position = len(encoded[:MAX_BYTES].decode(errors="ignore"))
        raise FilterSyntaxError(
            position, f"a filter must have at most {MAX_BYTES} bytes, not {len(encoded)}"
        )


def _expectation(expected: str, found: Token) -> str:
    hint = ""
    if found.kind is Kind.NAME and found.text.upper() in _KEYWORDS and found.text.islower():
        hint = f'; write "{found.text.upper()}" in capitals'
    return f"expected {expected}, found {found}{hint}"


def _operator_list(operators: frozenset[Operator]) -> str:
    return " ".join(
        ":*" if operator is Operator.HAS else operator.value
        for operator in Operator
        if operator in operators
    )


def _type_of(value: TagValue) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    return "an integer" if isinstance(value, int) else "a float"
