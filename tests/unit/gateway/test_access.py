"""Access control by bearer tokens."""

from __future__ import annotations

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.gateway.access import require_token


def test_without_tokens_there_is_no_check() -> None:
    assert require_token([]) is None


@pytest.mark.parametrize("header", ["Bearer two", "bearer two", "BEARER  two "])
def test_a_known_token_is_accepted(header: str) -> None:
    authorize = require_token(["one", "two"])
    assert authorize is not None
    authorize("/any", {"authorization": header})


@pytest.mark.parametrize("header", [None, "", "two", "Bearer", "Bearer ", "Bearer tw", "Basic two"])
def test_a_missing_or_unknown_token_is_rejected(header: str | None) -> None:
    authorize = require_token(["one", "two"])
    assert authorize is not None
    metadata = {} if header is None else {"authorization": header}
    with pytest.raises(ServiceError) as caught:
        authorize("/any", metadata)
    assert caught.value.reason is Reason.UNAUTHENTICATED
