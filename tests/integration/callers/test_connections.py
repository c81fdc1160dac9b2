"""Connections: how many, with how many calls, for how long."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.integration.callers.conftest import serving
from tests.integration.callers.test_requests import ADD, GET, ONE, served
from tests.raw_http2 import RawConnection

REFUSED_STREAM, ENHANCE_YOUR_CALM = 7, 11


def wait_for_ready(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        grpc.channel_ready_future(channel).result(timeout=20)


def test_calls_beyond_the_limit_of_a_connection_are_reset(target: str) -> None:
    with RawConnection(target) as connection:
        streams = [connection.open("/grpc.health.v1.Health/Watch") for _ in range(35)]
        while len(connection.resets) < 5 and not connection.is_closed:
            connection.poll(0.1)
        assert connection.max_streams == 30
        assert set(connection.resets) == set(streams[30:])
        assert set(connection.resets.values()) <= {REFUSED_STREAM, ENHANCE_YOUR_CALM}


def test_connections_beyond_the_limit_are_closed() -> None:
    with serving(MAX_CONNECTIONS="10") as target, ExitStack() as stack:
        connections = [stack.enter_context(RawConnection(target)) for _ in range(15)]
        while sum(connection.is_closed for connection in connections) < 5:
            for connection in connections:
                connection.poll()
        assert sum(bool(connection.max_streams) for connection in connections) == 10
        stack.close()
        wait_for_ready(target)
        assert served(target, "one")


def test_a_connection_without_calls_is_closed() -> None:
    with serving(MAX_CONNECTION_IDLE_S="0.5") as target, RawConnection(target) as connection:
        assert connection.wait_closed(10)


def test_a_connection_that_never_speaks_http2_is_closed(target: str) -> None:
    host, _, port = target.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        while connection.recv(1000):
            pass


def test_an_endless_stream_does_not_outlive_the_age_of_its_connection() -> None:
    limits = {"MAX_CONNECTION_AGE_S": "0.5", "MAX_CONNECTION_AGE_GRACE_S": "0.5"}
    with serving(**limits) as target, grpc.insecure_channel(target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.RpcError) as caught:
            for _ in watch:
                pass
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]


def test_a_caller_that_pings_too_often_is_disconnected(target: str) -> None:
    with RawConnection(target) as connection:
        for _ in range(20):
            connection.ping()
        assert connection.wait_closed(10)
        assert connection.open(ADD, ONE)


def test_a_caller_that_sends_bytes_of_no_call_is_disconnected(target: str) -> None:
    headers = [(f"x-{number}".encode(), b"y" * 1000) for number in range(500)]
    with RawConnection(target) as connection:
        while not connection.is_closed:
            connection.open(GET, [*ONE, *headers])
            connection.poll()
    assert served(target, "one")
