"""Headers of any bytes never cause an internal error."""

from __future__ import annotations

import pytest

from imagesearch.gateway.v1 import library_pb2
from tests.integration.callers.test_requests import GET, OK, ONE, RESOURCE_EXHAUSTED
from tests.raw_http2 import Header, RawConnection, message

REQUEST = message(library_pb2.GetLibraryRequest(name="a").SerializeToString())
UNKNOWN, INTERNAL = 2, 13


def status(target: str, *headers: Header) -> int | None:
    with RawConnection(target) as connection:
        stream = connection.open(GET, headers)
        connection.send(stream, REQUEST, end=True, timeout_s=1)
        return connection.status(stream, timeout_s=5)


@pytest.mark.parametrize(
    "value",
    [b"abc", b"\xe9", b"x" * 7000, b"a b", b"\t", b"", b"\x7f", b"../../etc", b"%00"],
    ids=repr,
)
def test_any_request_id_is_accepted_or_replaced(target: str, value: bytes) -> None:
    assert status(target, *ONE, (b"x-request-id", value)) == OK


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-request-id", b"a"), (b"x-request-id", b"b")],
        [(b"x-request-id-bin", b"AAEC")],
        [(b"x-any", b"\xff\xfe")],
        [(b"grpc-timeout", b"99999999H")],
        [(b"grpc-timeout", b"0n")],
        [(b"grpc-encoding", b"gzip")],
        [(b"grpc-accept-encoding", b"\xff")],
        [(b"user-agent", b"\xe9" * 100)],
        [(b"content-length", b"-1")],
        [(b"authorization", b"Bearer \xe9")],
        [(b"authorization", b"Bearer " + b"x" * 7000)],
        [(b"authorization", b"Bearer one")],
    ],
    ids=repr,
)
def test_no_header_causes_an_internal_error(target: str, headers: list[Header]) -> None:
    assert status(target, *ONE, *headers) not in {UNKNOWN, INTERNAL}
    assert status(target, *ONE) == OK


@pytest.mark.parametrize(
    "header",
    [
        (b"x-any-bin", b"!not base64!"),
        (b"grpc-timeout", b"-1S"),
        (b"grpc-timeout", b"soon"),
        (b"grpc-encoding", b"unknown"),
    ],
    ids=repr,
)
def test_a_header_that_grpc_itself_refuses_ends_only_its_call(target: str, header: Header) -> None:
    with RawConnection(target) as connection:
        refused, accepted = connection.open(GET, [*ONE, header]), connection.open(GET, ONE)
        connection.send(accepted, REQUEST, end=True)
        assert connection.status(refused) == INTERNAL
        assert connection.status(accepted) == OK


def test_headers_over_the_limit_are_refused(target: str) -> None:
    large = [(f"x-{number}".encode(), b"y" * 1000) for number in range(20)]
    with RawConnection(target) as connection:
        # The limit holds from the acknowledgement of the settings on.
        while not connection.max_streams:
            connection.poll(0.1)
        assert connection.status(connection.open(GET, [*ONE, *large])) == RESOURCE_EXHAUSTED
        accepted = connection.open(GET, ONE)
        connection.send(accepted, REQUEST, end=True)
        assert connection.status(accepted) == OK
