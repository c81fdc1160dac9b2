"""Page tokens of searches: valid, altered, foreign and expired."""

from __future__ import annotations

import base64
import tracemalloc
import uuid
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import Box, PictureInfo
from imagesearch_services.gateway.model import Relation
from imagesearch_services.gateway.search.answer import AppliedThreshold
from imagesearch_services.gateway.search.page_tokens import LIFETIME_S, PageTokens
from imagesearch_services.gateway.search.pinned_ranking import PinnedMatch, PinnedRanking
from imagesearch_services.gateway.search.token_format import MAX_ITEMS
from imagesearch_services.gateway.tokens import TokenKey


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1_750_000_000.0

    def __call__(self) -> float:
        return self.now_s


MATCHES = st.lists(
    st.builds(
        PinnedMatch,
        uid=st.binary(min_size=16, max_size=16),
        relation=st.sampled_from(Relation),
        score=st.floats(0, 1, width=32),
        similarity=st.floats(-1, 1, width=32),
        false_positive_rate=st.floats(0, 1, width=32),
        region=st.sampled_from([None, 0, 1]),
    ),
    max_size=20,
)


def ranking(matches: list[PinnedMatch] | None = None) -> PinnedRanking:
    return PinnedRanking(
        library_id="shop",
        library_uid="0" * 32,
        request={"filter": "1234", "relation": "5678"},
        total_found=37,
        total_is_lower_bound=True,
        searched_region=Box(0, 0, 640, 480),
        query_info=PictureInfo(640, 480, 12345, "ab" * 32, "image/jpeg", 17.25),
        thresholds=[AppliedThreshold(Relation.SAME, 0.25, 0.01, True)],
        regions=[Box(1, 2, 3.5, 4), Box(10, 20, 30, 40)],
        matches=matches_of(3) if matches is None else matches,
    )


def matches_of(count: int) -> list[PinnedMatch]:
    return [
        PinnedMatch(
            uuid.uuid5(uuid.NAMESPACE_OID, str(row)).bytes, Relation.SAME, 0.5, 0.25, 0.125, None
        )
        for row in range(count)
    ]


def refusal(tokens: PageTokens, token: str) -> Reason:
    with pytest.raises(ServiceError) as caught:
        tokens.decode(token)
    return caught.value.reason


@given(MATCHES)
def test_a_token_decodes_to_the_encoded_ranking(matches: list[PinnedMatch]) -> None:
    clock = Clock()
    tokens = PageTokens(TokenKey(b"key"), clock)
    pinned = ranking(matches)
    assert tokens.decode(tokens.encode(pinned)) == replace(
        pinned, expires_at_s=clock.now_s + LIFETIME_S
    )


def test_only_a_gateway_with_the_same_key_reads_a_token() -> None:
    token = PageTokens(TokenKey(b"key"), Clock()).encode(ranking())
    assert PageTokens(TokenKey(b"key"), Clock()).decode(token).total_found == 37
    assert refusal(PageTokens(TokenKey(b"other"), Clock()), token) is Reason.PAGE_TOKEN_INVALID


def test_a_thousand_matches_fit_into_fifty_kilobytes() -> None:
    token = PageTokens(TokenKey(b""), Clock()).encode(ranking(matches_of(MAX_ITEMS)))
    assert len(token) < 50_000
    assert len(PageTokens(TokenKey(b""), Clock()).decode(token).matches) == MAX_ITEMS


def test_a_token_is_valid_for_ten_minutes_from_the_first_page() -> None:
    clock = Clock()
    tokens = PageTokens(TokenKey(b""), clock)
    first = tokens.encode(ranking())
    clock.now_s += LIFETIME_S - 1
    second = tokens.encode(tokens.decode(first))
    clock.now_s += 1
    assert refusal(tokens, first) is Reason.PAGE_TOKEN_EXPIRED
    assert refusal(tokens, second) is Reason.PAGE_TOKEN_EXPIRED


def test_every_altered_byte_is_detected() -> None:
    tokens = PageTokens(TokenKey(b""), Clock())
    token = bytearray(base64.urlsafe_b64decode(tokens.encode(ranking(matches_of(2))) + "=="))
    for position in range(len(token)):
        altered = bytearray(token)
        altered[position] ^= 1
        text = base64.urlsafe_b64encode(altered).decode()
        assert refusal(tokens, text) is Reason.PAGE_TOKEN_INVALID, position


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60).map(lambda raw: raw.hex())))
def test_random_text_is_refused(text: str) -> None:
    assert refusal(PageTokens(TokenKey(b""), Clock()), text) is Reason.PAGE_TOKEN_INVALID


@given(st.binary(max_size=60))
def test_random_bytes_with_a_valid_checksum_are_refused(body: bytes) -> None:
    assert refusal(PageTokens(TokenKey(b""), Clock()), forged(body)) is Reason.PAGE_TOKEN_INVALID
    packed = forged(zlib.compress(body))
    assert refusal(PageTokens(TokenKey(b""), Clock()), packed) is Reason.PAGE_TOKEN_INVALID


def test_a_decompression_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = forged(zlib.compress(bytes(64 << 20)))
    tracemalloc.start()
    try:
        assert refusal(PageTokens(TokenKey(b""), Clock()), bomb) is Reason.PAGE_TOKEN_INVALID
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def forged(body: bytes) -> str:
    """Return a token with a valid checksum, as anybody can make it if no key is set."""
    return TokenKey(b"").sign(b"\x01", body)
