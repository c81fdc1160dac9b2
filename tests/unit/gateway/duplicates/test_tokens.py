"""Page tokens of FindDuplicates."""

from __future__ import annotations

import base64
import hmac
from dataclasses import replace

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.gateway.duplicates.model import ScanLimits
from imagesearch_services.gateway.duplicates.tokens import DuplicateTokens
from imagesearch_services.gateway.search.page_tokens import PageTokens
from imagesearch_services.gateway.search.pinned_ranking import PinnedRanking
from imagesearch_services.gateway.tokens import TokenKey
from tests.unit.gateway.duplicates.scripted import Bench, refusal


@pytest.mark.parametrize(
    "token", ["x", "not base64!", "A" * 200, PageTokens(TokenKey(b"key"), lambda: 0).encode(
        PinnedRanking(
            library_id="shop", library_uid="1" * 32, request={}, total_found=0,
            total_is_lower_bound=False, searched_region=None, query_info=None, thresholds=[],
            regions=[], matches=[],
        )
    )],
    ids=["too short", "not base64", "unsigned", "search token"],
)  # fmt: skip
async def test_tokens_of_other_origin_are_refused(token: str) -> None:
    bench = Bench()
    bench.catalog.put("a")
    assert (await refusal(bench, page_token=token)).reason is Reason.PAGE_TOKEN_INVALID


@pytest.mark.parametrize(
    "body",
    [
        b'["u",{},Infinity,"","",0,"",0]',
        b'["u",{},0,"","",0,"",0]',
        b'["u",{},1,"","",-1,"",0]',
        b'["u",{},1,"","",4294967296,"",0]',
        b"[" * 30_000,
    ],
    ids=["infinity", "no comparisons", "negative count", "count over int32", "deep nesting"],
)
async def test_malformed_tokens_signed_with_the_default_key_are_refused(body: bytes) -> None:
    version = b"\x80"
    mac = hmac.digest(b"", version + body, "sha256")[:16]
    token = base64.urlsafe_b64encode(version + mac + body).decode().rstrip("=")
    with pytest.raises(ServiceError) as caught:
        DuplicateTokens(TokenKey(b"")).decode(token)
    assert caught.value.reason is Reason.PAGE_TOKEN_INVALID


async def test_a_token_is_bound_to_its_library_and_request() -> None:
    bench = Bench(limits=ScanLimits(page_images=1))
    bench.catalog.put("ab")
    fingerprints = {"keep": "1", "filter": "2"}
    first, *_ = await bench.find(fingerprints=fingerprints)
    error = await refusal(
        bench, fingerprints={**fingerprints, "keep": "3"}, page_token=first.next_page_token
    )
    assert error.reason is Reason.PAGE_TOKEN_INVALID
    assert "keep" in error.message
    bench.catalog.library = replace(bench.catalog.library, uid="2" * 32)
    error = await refusal(bench, fingerprints=fingerprints, page_token=first.next_page_token)
    assert error.reason is Reason.PAGE_TOKEN_INVALID
