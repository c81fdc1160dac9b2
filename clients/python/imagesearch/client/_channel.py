"""Channel options of both clients: address, message limits, retries and access token."""

from __future__ import annotations

import json
import os

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from imagesearch.gateway.v1 import image_search_service_pb2

DEFAULT_TARGET = "127.0.0.1:50051"
"""Address of a Gateway on this machine."""
MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Maximum size of a message, in bytes; the Gateway refuses larger requests."""

SERVICE = image_search_service_pb2.DESCRIPTOR.services_by_name["ImageSearchService"]


def is_repeatable(method: MethodDescriptor) -> bool:
    """Return whether a repeated call has no further effect.

    That holds for reads, and for mutations whose request, or each item of it, has a request id.
    """
    if method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS:
        return True
    request = method.input_type
    items = request.fields_by_name.get("requests")
    if items is not None and items.message_type is not None:
        request = items.message_type
    return "request_id" in request.fields_by_name


SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": SERVICE.full_name, "method": method.name}
                for method in SERVICE.methods
                if is_repeatable(method)
            ],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

CHANNEL_OPTIONS = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # gRPC retries only messages that fit its buffer; the default of 256 KiB excludes most pictures.
    ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES + 4096),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


def resolve_target(target: str | None) -> str:
    """Return the given address, or `IMAGESEARCH_TARGET`, or the default."""
    return target or os.environ.get("IMAGESEARCH_TARGET") or DEFAULT_TARGET


def call_metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata of every call, which contains the bearer token."""
    return (("authorization", f"Bearer {token}"),) if token else ()
