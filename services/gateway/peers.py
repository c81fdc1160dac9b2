"""What the clients of both services behind the Gateway share."""

from __future__ import annotations

import grpc.aio
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.status import from_status

HEALTH_TIMEOUT_S = 1.0


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
    return from_status(status) or ServiceError(Reason.INTERNAL, "an error without a known reason")
