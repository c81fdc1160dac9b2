"""Health checks and item errors, for the clients of both services behind the Gateway."""

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
    """Check that a service reports SERVING.

    Raises:
        RuntimeError: it reports another status.
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
        return ServiceError(Reason.INTERNAL, "a service returned an error without a known reason")
    return with_public_fields(error)


def wrong_result_count(peer: str, count: int, expected: int) -> ServiceError:
    """Return the error for a response of another service with the wrong number of results."""
    return ServiceError(Reason.INTERNAL, f"{peer} returned {count} results instead of {expected}")


def with_public_fields(error: ServiceError) -> ServiceError:
    """Replace paths of fields in internal requests by paths in the public request of one image."""
    return ServiceError(
        error.reason,
        _public(error.message),
        metadata={name: _public(value) for name, value in error.metadata.items()}
        if "field" in error.metadata
        else error.metadata,
        fields=[replace(violation, field=_public(violation.field)) for violation in error.fields],
        retry_after_s=error.retry_after_s,
    )


def _public(text: str) -> str:
    return _REGION.sub("region", _ITEM.sub("", text))
