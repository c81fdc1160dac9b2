"""Calls between services: channels with retries and load balancing, and deadline propagation."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from imagesearch_services.common.context import (
    REQUEST_ID_HEADER,
    request_id,
    time_remaining_s,
)
from imagesearch_services.common.errors import Reason
from imagesearch_services.common.routing import HealthyFirstChannel
from imagesearch_services.common.status import from_rpc_error

Response = TypeVar("Response")

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Maximum bytes per message between services, twice a batch of pictures with its vectors."""

PING_INTERVAL_MS = 2000
"""Time without data on a connection after which the client sends a ping."""

PING_TIMEOUT_MS = 3500
"""Maximum time to answer a ping; then the connection is closed."""

HANDSHAKE_TIMEOUT_MS = 2000
"""Maximum time to set up a connection."""

RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
RETRY_THROTTLING = {"maxTokens": 20, "tokenRatio": 0.5}
"""A failure takes a token, a success returns half of one; with ten tokens or fewer no call is
retried. So a service that is slow or gone does not get several times its usual load."""


def retried_methods(service: ServiceDescriptor, never_retried: Collection[str] = ()) -> list[str]:
    """Return the methods that gRPC may retry: reads, declared as such in the proto."""
    return [
        method.name
        for method in service.methods
        if method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
        and method.name not in never_retried
    ]


def connect(
    target: str, service: ServiceDescriptor, never_retried: Collection[str] = ()
) -> grpc.aio.Channel:
    """Return a channel to another service of the suite, which retries reads.

    It connects on first use, reconnects automatically, and calls only healthy addresses if there
    are any.

    Args:
        target: gRPC name: `host:port`, or `dns:///name:port` to balance over all addresses.
        service: descriptor of the service.
        never_retried: names of reads that are not retried.
    """
    names = [
        {"service": service.full_name, "method": method}
        for method in retried_methods(service, never_retried)
    ]
    service_config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": names, "retryPolicy": RETRY_POLICY}],
        "retryThrottling": RETRY_THROTTLING,
    }
    checked = {**service_config, "healthCheckConfig": {"serviceName": service.full_name}}
    return HealthyFirstChannel(
        _channel(target, checked),
        _channel(target, service_config),
        [f"/{name['service']}/{name['method']}" for name in names],
    )


def _channel(target: str, service_config: Mapping[str, object]) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.service_config", json.dumps(service_config)),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # gRPC retries only calls that fit in this buffer. The default is 256 KiB.
            ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
            # Reconnect to a restarted service within a second; the default is up to minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            # A service that is stopped, or whose machine is gone, answers neither pings nor
            # handshakes: its calls fail within five seconds, and other addresses are called.
            ("grpc.keepalive_time_ms", PING_INTERVAL_MS),
            ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
            # The keepalive timeout has no effect in grpcio 1.85 unless this one is as short.
            ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.min_reconnect_backoff_ms", HANDSHAKE_TIMEOUT_MS),
        ],
    )


async def call(
    method: Callable[..., Awaitable[Response]], request: Any, *, peer: Reason, timeout_s: float
) -> Response:
    """Call another service on behalf of the current call.

    Passes on the request id and the remaining time of the caller, at most `timeout_s`.

    Args:
        method: method of a stub.
        request: request message.
        peer: reason to raise if the service is unreachable, for example CATALOG_UNAVAILABLE.
        timeout_s: maximum duration of the call.

    Raises:
        ServiceError: the error of the other service if it has a reason, otherwise `peer`,
            DEADLINE_EXCEEDED, OVERLOADED or INTERNAL.
    """
    try:
        return await method(
            request,
            timeout=time_remaining_s(timeout_s),
            metadata=((REQUEST_ID_HEADER, request_id()),),
        )
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, peer=peer) from error
