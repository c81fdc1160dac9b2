"""Tokens that are signed but malformed: each is read in full, or refused with the right reason."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import (
    Attribute,
    Box,
    Category,
    Color,
    PictureInfo,
    Subject,
)
from imagesearch_services.gateway.duplicates.tokens import VERSION as DUPLICATES_VERSION
from imagesearch_services.gateway.duplicates.tokens import DuplicateTokens, Position
from imagesearch_services.gateway.model import Relation
from imagesearch_services.gateway.search.answer import AppliedThreshold
from imagesearch_services.gateway.search.page_tokens import LIFETIME_S, VERSION, PageTokens
from imagesearch_services.gateway.search.pinned_ranking import PinnedMatch, PinnedRanking
from imagesearch_services.gateway.tokens import KEY_KEPT_S, TokenKey

Decoded = TypeVar("Decoded")

NOW_S = 1_750_000_000.0
KEY = TokenKey(b"key")
TOKENS = PageTokens(KEY, lambda: NOW_S)
REFUSED = {Reason.PAGE_TOKEN_INVALID, Reason.PAGE_TOKEN_EXPIRED}
OUTLINE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))

RANKING = PinnedRanking(
    library_id="shop",
    library_uid="0" * 32,
    request={"filter": "1234"},
    total_found=37,
    total_is_lower_bound=True,
    searched_region=Box(0, 0, 640, 480),
    query_info=PictureInfo(640, 480, 12345, "ab" * 32, "image/jpeg", 17.25),
    subjects=[
        Subject(
            Box(0, 0, 1, 1),
            next(iter(Category)),
            0.5,
            [Color("red", "#ff0000", 0.5)],
            [Attribute("pattern", "striped", 0.5)],
        )
    ],
    chosen_subject=0,
    warnings=["blurred"],
    thresholds=[AppliedThreshold(Relation.SAME, 0.25, 0.01, True)],
    regions=[Box(1, 2, 3, 4)],
    matches=[PinnedMatch(bytes(16), Relation.SAME, 0.5, 0.25, 0.1, 0, [OUTLINE])],
)
POSITION = ["1" * 32, {"keep": "1"}, 1000, "", "0" * 32, 5, "", 0]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([-1, 255, 2**31, 2**63, 1e400, "ff" * 16]),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=5), values),
    max_leaves=8,
)


def packed(token: str) -> tuple[dict[str, Any], bytes]:
    """Return the header and the columns of a token."""
    raw = zlib.decompress(KEY.verify(VERSION, token))
    (length,) = struct.unpack_from("<I", raw)
    return json.loads(raw[4 : 4 + length]), raw[4 + length :]


def signed(header: object, columns: bytes) -> str:
    text = json.dumps(header).encode()
    return KEY.sign(VERSION, zlib.compress(struct.pack("<I", len(text)) + text + columns))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside a JSON value."""
    members: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        members = list(value.items())
    elif isinstance(value, list):
        members = list(enumerate(value))
    return [path, *(place for key, member in members for place in places(member, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: object) -> Any:
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = replaced(copied[path[0]], path[1:], new)
    return copied


HEADER, COLUMNS = packed(TOKENS.encode(RANKING))


def outcome(decode: Callable[[str], Decoded], token: str) -> Decoded | ServiceError:
    """Return what a token holds, or its error, which must be one that callers are meant to see."""
    try:
        return decode(token)
    except ServiceError as error:
        return error


def check(token: str) -> None:
    ranking = outcome(TOKENS.decode, token)
    if isinstance(ranking, ServiceError):
        assert ranking.reason in REFUSED
        assert ranking.fields[0].field == "page_token"
        return
    # What was accepted can be sent back to the caller and encoded again.
    assert TOKENS.decode(TOKENS.encode(ranking)) == ranking
    for match in ranking.matches:
        assert match.region is None or ranking.regions[match.region]
    assert ranking.chosen_subject is None or ranking.subjects[ranking.chosen_subject]
    assert NOW_S < ranking.expires_at_s < NOW_S + 2 * LIFETIME_S


def test_a_token_with_every_field_is_read() -> None:
    assert TOKENS.decode(signed(HEADER, COLUMNS)).matches[0].instances == (OUTLINE,)


@given(st.sampled_from(places(HEADER)), JSON)
def test_a_wrong_value_anywhere_in_a_search_token_is_no_internal_error(
    path: tuple[Any, ...], value: object
) -> None:
    check(signed(replaced(HEADER, path, value), COLUMNS))


@given(st.binary(min_size=30, max_size=30))
def test_wrong_columns_of_a_search_token_are_no_internal_error(columns: bytes) -> None:
    check(signed(HEADER, columns))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expires", 4e9),
        ("expires", float("inf")),
        ("expires", float("nan")),
        ("expires", "soon"),
        ("expires", -1),
        ("chosen", 1),
        ("count", 2),
        ("regions", []),
        ("total", [True, True]),
        ("request", {"filter": 1}),
        ("instances", []),
    ],
)
def test_a_malformed_search_token_is_refused(field: str, value: object) -> None:
    with pytest.raises(ServiceError) as caught:
        TOKENS.decode(signed({**HEADER, field: value}, COLUMNS))
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


@given(st.sampled_from(places(POSITION)), JSON)
def test_a_wrong_value_anywhere_in_a_duplicates_token_is_no_internal_error(
    path: tuple[Any, ...], value: object
) -> None:
    body = json.dumps(replaced(POSITION, path, value)).encode()
    tokens = DuplicateTokens(KEY)
    position = outcome(tokens.decode, KEY.sign(DUPLICATES_VERSION, body))
    if isinstance(position, ServiceError):
        assert position.reason is Reason.PAGE_TOKEN_INVALID
        return
    assert tokens.decode(tokens.encode(position)) == position
    assert len(position.after) in {0, 16}


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_of_any_token_is_detected(position: int, difference: int) -> None:
    duplicates = DuplicateTokens(KEY)
    first = duplicates.encode(Position(library_uid="u", fingerprints={}, comparisons=1))
    for token, decode in ((first, duplicates.decode), (TOKENS.encode(RANKING), TOKENS.decode)):
        raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        raw[position % len(raw)] ^= difference
        with pytest.raises(ServiceError) as caught:
            decode(base64.urlsafe_b64encode(raw).decode())
        assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


async def test_the_key_of_the_installation_is_kept_while_the_catalog_does_not_answer() -> None:
    now_s, answers = 0.0, [b"first", None, b"second"]

    async def fetch() -> bytes:
        answer = answers.pop(0)
        if answer is None:
            raise ServiceError(Reason.CATALOG_UNAVAILABLE, "gone")
        return answer

    key = TokenKey(fetch=fetch, now_s=lambda: now_s)
    await key.load()
    token = key.sign(b"v", b"body")
    now_s = KEY_KEPT_S
    await key.load()
    assert key.verify(b"v", token) == b"body"
    await key.load()
    with pytest.raises(ServiceError):
        key.verify(b"v", token)
    assert not answers


async def test_without_the_key_of_the_installation_no_token_is_made() -> None:
    async def fetch() -> bytes:
        raise ServiceError(Reason.CATALOG_UNAVAILABLE, "gone")

    with pytest.raises(ServiceError):
        await TokenKey(fetch=fetch).load()
