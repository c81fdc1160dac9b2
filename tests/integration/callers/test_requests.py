"""Requests that are incomplete, large or malformed, and what a server holds for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest

from imagesearch.gateway.v1 import image_search_service_pb2_grpc, library_pb2
from tests.integration.callers.conftest import SERVICE
from tests.raw_http2 import RawConnection, message

OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAUTHENTICATED = 0, 3, 4, 8, 16
ADD, GET, CHECK = f"/{SERVICE}/AddImage", f"/{SERVICE}/GetLibrary", "/grpc.health.v1.Health/Check"
ONE = [(b"authorization", b"Bearer one")]
MIB = 1 << 20
HALF = message(b"\0" * (8 * MIB), declared_bytes=9 * MIB)


@pytest.fixture
def connection(target: str) -> Iterator[RawConnection]:
    with RawConnection(target) as opened:
        yield opened


def served(target: str, token: str) -> bool:
    with grpc.insecure_channel(target) as channel:
        stub = image_search_service_pb2_grpc.ImageSearchServiceStub(channel)
        metadata = [("authorization", f"Bearer {token}")]
        request = library_pb2.GetLibraryRequest(name="a")
        return bool(stub.GetLibrary(request, timeout=5, metadata=metadata).name)


def reason(connection: RawConnection, stream: int) -> bytes:
    return connection.headers[stream].get(b"grpc-status-details-bin", b"")


def test_a_caller_without_a_token_is_refused_before_its_message(connection: RawConnection) -> None:
    stream = connection.open(ADD)
    assert connection.status(stream) == UNAUTHENTICATED


def test_a_server_takes_no_more_than_the_window_from_a_caller_without_a_token(
    connection: RawConnection,
) -> None:
    stream = connection.open(ADD, [(b"authorization", b"Bearer wrong")])
    assert connection.send(stream, HALF, timeout_s=2) <= 64 * 1024
    assert connection.status(stream) == UNAUTHENTICATED


def test_a_request_without_progress_ends(connection: RawConnection) -> None:
    stream = connection.open(ADD, ONE)
    connection.send(stream, message(b"\0" * 1000, declared_bytes=MIB))
    assert connection.status(stream) == DEADLINE_EXCEEDED
    assert b"0.5 s" in connection.headers[stream][b"grpc-message"]


def test_a_request_below_the_minimum_rate_ends(connection: RawConnection) -> None:
    stream = connection.open(ADD, ONE)
    connection.send(stream, message(b"", declared_bytes=MIB))
    while connection.status(stream, timeout_s=0.1) is None:
        assert connection.send(stream, b"\0") == 1
    assert connection.status(stream) == DEADLINE_EXCEEDED


def test_incomplete_requests_over_the_share_of_a_caller_end_and_others_are_served(
    target: str,
) -> None:
    with ExitStack() as stack:
        calls = []
        for _ in range(4):
            connection = stack.enter_context(RawConnection(target))
            stream = connection.open(ADD, ONE)
            connection.send(stream, HALF)
            calls.append((connection, stream))
        assert served(target, "two")
        statuses = [connection.status(stream) for connection, stream in calls]
        # Only the calls ended: their connections serve others.
        for connection, _ in calls:
            other = connection.open(GET, ONE)
            connection.send(other, message(b""), end=True)
            assert connection.status(other) == OK
    assert RESOURCE_EXHAUSTED in statuses
    assert set(statuses) <= {RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED}


def test_a_request_larger_than_its_method_takes_is_refused(connection: RawConnection) -> None:
    request = library_pb2.GetLibraryRequest(name="x" * 65 * 1024).SerializeToString()
    stream = connection.open(GET, ONE)
    connection.send(stream, message(request), end=True)
    assert connection.status(stream) == INVALID_ARGUMENT
    assert b"65536" in connection.headers[stream][b"grpc-message"]


def test_a_request_that_is_no_protobuf_is_refused(connection: RawConnection) -> None:
    stream = connection.open(GET, ONE)
    connection.send(stream, message(b"\xff\xff\xff"), end=True)
    assert connection.status(stream) == INVALID_ARGUMENT


def test_a_call_without_a_message_is_refused(connection: RawConnection) -> None:
    assert connection.status(connection.open(GET, ONE, end=True)) == INVALID_ARGUMENT


def test_an_incomplete_health_check_ends(connection: RawConnection) -> None:
    stream = connection.open(CHECK)
    connection.send(stream, message(b"\0", declared_bytes=MIB))
    # Health checks are not limited by the settings of the server.
    assert connection.status(stream, timeout_s=15) == DEADLINE_EXCEEDED


def test_a_large_health_check_is_refused(connection: RawConnection) -> None:
    stream = connection.open(CHECK)
    connection.send(stream, message(b"\x0a\x80\x80\x08" + b"x" * 131_072), end=True)
    assert connection.status(stream) == INVALID_ARGUMENT


def test_one_caller_gets_half_of_the_open_calls(target: str) -> None:
    with ExitStack() as stack:
        calls = []
        for _ in range(12):
            connection = stack.enter_context(RawConnection(target))
            calls.append((connection, connection.open(ADD, ONE)))
        assert served(target, "two")
        statuses = [connection.status(stream) for connection, stream in calls]
    assert statuses.count(RESOURCE_EXHAUSTED) >= 2
    assert statuses.count(DEADLINE_EXCEEDED) == 12 - statuses.count(RESOURCE_EXHAUSTED)
