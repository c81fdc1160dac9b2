"""Altered and forged page tokens of every RPC that has them; keys that replicas share."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Iterator

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagesearch.catalog.v1 import catalog_service_pb2 as catalog_pb
from imagesearch.catalog.v1 import catalog_service_pb2_grpc as catalog_grpc
from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.type.v1 import picture_pb2
from imagesearch_services.common.errors import Reason
from tests.e2e.errors import refused
from tests.integration.gateway.conftest import Gateways, Stub, temporary_library
from tests.pictures import encoded, photo

SOME = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def stocked(gateway: Stub) -> Iterator[str]:
    with temporary_library(gateway) as name, temporary_library(gateway):
        for seed in range(3):
            gateway.AddImage(
                image_pb2.AddImageRequest(
                    parent=name,
                    image_id=str(seed),
                    image=picture_pb2.ImageContent(content=encoded(photo(1), quality=90 + seed)),
                )
            )
        yield name


Calls = dict[str, Callable[[str], str]]
"""By RPC: calls it with a page token and returns the next page's token."""


@pytest.fixture(scope="module")
def calls(gateway: Stub, stocked: str) -> Calls:
    def search(token: str) -> str:
        picture = None if token else picture_pb2.ImageContent(content=encoded(photo(1)))
        request = search_pb2.SearchImagesRequest(
            parent=stocked, image=picture, page_token=token, page_size=1
        )
        return gateway.SearchImages(request).next_page_token

    def images(token: str) -> str:
        request = image_pb2.ListImagesRequest(parent=stocked, page_token=token, page_size=1)
        return gateway.ListImages(request).next_page_token

    def libraries(token: str) -> str:
        request = library_pb2.ListLibrariesRequest(page_token=token, page_size=1)
        return gateway.ListLibraries(request).next_page_token

    def duplicates(token: str) -> str:
        request = search_pb2.FindDuplicatesRequest(parent=stocked, page_token=token)
        tokens = [update.next_page_token for update in gateway.FindDuplicates(request)]
        return next(filter(None, tokens), "")

    return {
        "search": search,
        "images": images,
        "libraries": libraries,
        "duplicates": duplicates,
    }


@pytest.fixture(scope="module")
def tokens(calls: Calls) -> dict[str, str]:
    """Return a valid token of each RPC."""
    valid = {name: call("") for name, call in calls.items()}
    assert all(valid.values())
    for name, token in valid.items():
        calls[name](token)
    return valid


@SOME
@given(
    st.sampled_from(["search", "images", "libraries", "duplicates"]),
    st.sampled_from(["search", "images", "libraries", "duplicates"]),
    st.data(),
)
def test_altered_tokens_are_refused_by_every_rpc(
    calls: Calls, tokens: dict[str, str], rpc: str, origin: str, data: st.DataObject
) -> None:
    token = tokens[origin]
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    change = data.draw(st.sampled_from(["byte", "cut", "longer", "unsigned", "text", "none"]))
    if change == "byte":
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    elif change == "cut":
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    elif change == "longer":
        raw += data.draw(st.binary(min_size=1, max_size=40))
    elif change == "unsigned":
        # As anybody could sign it while the default key was empty.
        raw[1:17] = hmac.digest(b"", bytes([raw[0]]) + raw[17:], "sha256")[:16]
    forged = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    if change == "text":
        forged = data.draw(st.text(min_size=1, max_size=80))
    if not forged or (change == "none" and rpc == origin):
        return
    assert refused(calls[rpc], forged).reason is Reason.PAGE_TOKEN_INVALID


def test_gateways_of_one_installation_read_each_others_tokens(
    gateways: Gateways, tokens: dict[str, str], stocked: str
) -> None:
    other = gateways.start()
    request = search_pb2.SearchImagesRequest(parent=stocked, page_token=tokens["search"])
    assert other.SearchImages(request).matches
    foreign = gateways.start(PAGE_TOKEN_KEY="another key")  # noqa: S106
    assert refused(foreign.SearchImages, request).reason is Reason.PAGE_TOKEN_INVALID


def test_the_catalog_does_not_hand_out_its_own_key(catalog_target: str) -> None:
    with grpc.insecure_channel(catalog_target) as channel:
        stub = catalog_grpc.CatalogServiceStub(channel)
        key = stub.GetPageTokenKey(catalog_pb.GetPageTokenKeyRequest()).key
        assert key == stub.GetPageTokenKey(catalog_pb.GetPageTokenKeyRequest()).key
        body = bytes(8) + b"shop"
        mac = hmac.digest(key, b"catalog page token " + body, "sha256")[:16]
        token = base64.urlsafe_b64encode(mac + body).decode()
        request = catalog_pb.ListLibrariesRequest(page_token=token)
        assert refused(stub.ListLibraries, request).reason is Reason.PAGE_TOKEN_INVALID
