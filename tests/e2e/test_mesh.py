"""The suite behind Envoy with the configuration of deploy/envoy."""

from __future__ import annotations

import struct
import urllib.request
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from imagesearch.gateway.v1 import image_pb2, library_pb2, search_pb2
from imagesearch.gateway.v1 import image_search_service_pb2_grpc as service
from imagesearch.type.v1 import picture_pb2
from imagesearch_services.common.errors import Reason
from imagesearch_services.runner.suite import Suite
from tests.e2e.errors import refused
from tests.envoy_proxy import EnvoyProxy, running_envoy
from tests.pictures import encoded, photo

NAME = "imagesearch.gateway.v1.ImageSearchService"


@pytest.fixture(scope="module")
def envoy(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnvoyProxy]:
    with running_envoy([suite.target], tmp_path_factory.mktemp("envoy")) as running:
        yield running


@pytest.fixture(scope="module")
def channel(envoy: EnvoyProxy) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(envoy.target) as opened:
        yield opened


def test_health_checks_pass_through_envoy(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", NAME):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_picture_added_through_envoy_is_found_through_envoy(
    channel: grpc.Channel, library: str
) -> None:
    stub = service.ImageSearchServiceStub(channel)
    picture = picture_pb2.ImageContent(content=encoded(photo(seed=77)))
    stub.AddImage(image_pb2.AddImageRequest(parent=library, image_id="77", image=picture))
    answer = stub.SearchImages(search_pb2.SearchImagesRequest(parent=library, image=picture))
    assert [match.image.image_id for match in answer.matches] == ["77"]


def test_errors_pass_through_envoy_with_their_details(channel: grpc.Channel) -> None:
    stub = service.ImageSearchServiceStub(channel)
    error = refused(stub.GetLibrary, library_pb2.GetLibraryRequest(name="libraries/nowhere"))
    assert error.reason == Reason.LIBRARY_NOT_FOUND
    assert error.metadata == {"library": "libraries/nowhere"}


def test_a_browser_can_call_with_grpc_web(envoy: EnvoyProxy, library: str) -> None:
    request = library_pb2.GetLibraryRequest(name=library).SerializeToString()
    answer = urllib.request.urlopen(
        urllib.request.Request(
            f"http://{envoy.target}/{NAME}/GetLibrary",
            data=frame(request),
            headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
        )
    ).read()
    (flags, size) = struct.unpack(">BI", answer[:5])
    assert flags == 0
    assert library_pb2.Library.FromString(answer[5 : 5 + size]).name == library
    # A second frame, marked by the highest bit, holds the trailers.
    trailers = answer[5 + size :]
    assert trailers[0] == 0x80
    assert b"grpc-status:0" in trailers


def frame(message: bytes) -> bytes:
    """Return a message with the length prefix of gRPC."""
    return struct.pack(">BI", 0, len(message)) + message
