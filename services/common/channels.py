"""Calls from service to service: channels with retries and balancing, deadlines handed on."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio

from imagesearch_services.common.context import (
    REQUEST_ID_HEADER,
    request_id,
    time_remaining_s,
)
from imagesearch_services.common.errors import Reason
from imagesearch_services.common.status import from_rpc_error

Response = TypeVar("Response")

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Between services: a batch of pictures plus its vectors fits twice over."""

IDEMPOTENT_METHODS = {
    "imagesearch.embedding.v1.EmbeddingService": (),
    "imagesearch.catalog.v1.CatalogService": (
        "GetLibrary",
        "ListLibraries",
        "GetEntries",
        "ListEntries",
        "QueryEntries",
        "FilterRejectedPairs",
    ),
}
"""Methods that may be called again without harm; an empty tuple means all of the service's.

GetThumbnails is not among them: while their store hangs, each try would wait for it anew.
"""

RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def connect(target: str, service: str) -> grpc.aio.Channel:
    """Open a channel to one of our services. It connects on first use and reconnects by itself.

    Args:
        target: a gRPC name, `host:port` or `dns:///name:port` to balance over all addresses.
        service: full service name; says which methods may be retried.
    """
    methods = IDEMPOTENT_METHODS[service]
    names = [{"service": service, "method": method} for method in methods] or [{"service": service}]
    service_config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": names, "retryPolicy": RETRY_POLICY}],
    }
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.service_config", json.dumps(service_config)),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # gRPC repeats only calls that fit in here; pictures do not fit in the 256 KiB it has.
            ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
            # A service that comes back is found again within a second, not after minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 5_000),
        ],
    )


async def call(
    method: Callable[..., Awaitable[Response]], request: Any, *, peer: Reason, timeout_s: float
) -> Response:
    """Call another service on behalf of the call being served.

    Hands on the request id and what is left of the caller's deadline, at most `timeout_s`.

    Args:
        method: of a stub.
        request: its message.
        peer: the reason to give where the service does not answer, e.g. CATALOG_UNAVAILABLE.
        timeout_s: the deadline where the caller set none, or a later one.

    Raises:
        ServiceError: with the other service's own reason where it sent one.
    """
    try:
        return await method(
            request,
            timeout=time_remaining_s(timeout_s),
            metadata=((REQUEST_ID_HEADER, request_id()),),
        )
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, peer=peer) from error
