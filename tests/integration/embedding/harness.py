"""Runs the Embedding service in the process of the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from imagesearch.embedding.v1 import embedding_service_pb2_grpc as pb_grpc
from imagesearch_services.common.env import Env
from imagesearch_services.common.server import start
from imagesearch_services.embedding.app import build
from imagesearch_services.embedding.servicer import SERVICE
from imagesearch_services.embedding.settings import PREFIX, Settings
from tests.ports import free_port

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Client:
    """Client of a running Embedding service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.embedding = pb_grpc.EmbeddingServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)

    async def until(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        """Wait until the service has a health status."""
        watch = self._health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=60)
        async for answer in watch:
            if answer.status == status:
                watch.cancel()
                return


@asynccontextmanager
async def running_embedding(triton_target: str, **variables: str) -> AsyncIterator[Client]:
    """Run the service with these settings on a free port, without waiting until it is healthy."""
    port = free_port()
    variables = {
        "PORT": str(port),
        "TRITON_TARGET": triton_target,
        "CHECK_INTERVAL_S": "0.05",
        "WATCH_INTERVAL_S": "0.1",
        "GRACE_S": "0.5",
    } | variables
    environment = {PREFIX + name: value for name, value in variables.items()}
    server = await start(build(Settings.from_env(Env(PREFIX, environment))))
    try:
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)]
        ) as channel:
            yield Client(channel)
    finally:
        await server.stop()
