"""Page tokens and page sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesearch_services.catalog.paging import make_token, page_size, read_token
from imagesearch_services.common.errors import Reason, ServiceError


@given(st.text(max_size=20), st.binary(max_size=64))
def test_a_page_token_is_readable_only_in_its_own_scope(scope: str, last: bytes) -> None:
    token = make_token(scope, last)
    assert read_token(scope, token) == last
    with pytest.raises(ServiceError):
        read_token(scope + "x", token)


@given(st.text(min_size=1, max_size=80))
def test_invalid_page_tokens_are_refused(text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        read_token("scope", text)
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


def test_page_sizes_have_a_default_and_a_maximum() -> None:
    assert [page_size(requested) for requested in (0, 1, 1000, 1001)] == [100, 1, 1000, 1000]
