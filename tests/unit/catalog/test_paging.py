"""Page tokens and page sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesearch_services.catalog.paging import PageTokens, effective_page_size
from imagesearch_services.common.errors import Reason, ServiceError


async def key() -> bytes:
    return b"key"


async def other_key() -> bytes:
    return b"other"


@given(st.text(max_size=20), st.binary(max_size=64))
async def test_a_page_token_is_readable_only_in_its_own_scope(scope: str, last: bytes) -> None:
    tokens = PageTokens(key)
    token = await tokens.make(scope, last)
    assert await tokens.read(scope, token) == last
    with pytest.raises(ServiceError):
        await tokens.read(scope + "x", token)
    with pytest.raises(ServiceError):
        await PageTokens(other_key).read(scope, token)


@given(st.text(min_size=1, max_size=80))
async def test_invalid_page_tokens_are_refused(text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        await PageTokens(key).read("scope", text)
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


def test_page_sizes_have_a_default_and_a_maximum() -> None:
    assert [effective_page_size(requested) for requested in (0, 1, 1000, 1001)] == [
        100,
        1,
        1000,
        1000,
    ]
