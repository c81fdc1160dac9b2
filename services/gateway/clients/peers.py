"""What the clients of both services behind the Gateway share."""

from __future__ import annotations

import re
from dataclasses import replace

import grpc.aio
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.status import from_status

HEALTH_TIMEOUT_S = 1.0

_ITEM = re.compile(r"\b(?:items|entries)\[\d+\]\.")
_REGION = re.compile(r"\bregions\[\d+\]")


async def check_health(channel: grpc.aio.Channel, service: str) -> None:
    """Ask a service whether it serves.

    Raises:
        RuntimeError: it says that it does not.
        grpc.aio.AioRpcError: it does not answer.
    """
    response = await health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service=service), timeout=HEALTH_TIMEOUT_S
    )
    if response.status != health_pb2.HealthCheckResponse.SERVING:
        raise RuntimeError(f"{service} is not serving")


def item_error(status: status_pb2.Status) -> ServiceError:
    """Read the error of one item of a batch."""
    error = from_status(status)
    if error is None:
        return ServiceError(Reason.INTERNAL, "an error without a known reason")
    return in_public_fields(error)


def in_public_fields(error: ServiceError) -> ServiceError:
    """Name request fields as our callers know them: where they stand in one picture's request."""
    return ServiceError(
        error.reason,
        _public(error.message),
        metadata={name: _public(value) for name, value in error.metadata.items()}
        if "field" in error.metadata
        else error.metadata,
        fields=[replace(fault, field=_public(fault.field)) for fault in error.fields],
        retry_after_s=error.retry_after_s,
    )


def _public(text: str) -> str:
    return _REGION.sub("region", _ITEM.sub("", text))
