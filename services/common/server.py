"""Runs a service: signals, health that reflects its dependencies, and graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from imagesearch_services.common import metrics
from imagesearch_services.common.env import Env
from imagesearch_services.common.flood_guard import FloodGuard
from imagesearch_services.common.interceptor import Admission, Authorize, CallInterceptor
from imagesearch_services.common.logs import configure_logs, logger
from imagesearch_services.common.server_limits import MIB, ServerLimits, allow_files

ServingStatus = health_pb2.HealthCheckResponse.ServingStatus
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LIVENESS = "liveness"
"""Health name for liveness probes. It is always SERVING: a restart cannot repair a dependency."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Settings of a gRPC server."""

    host: str
    """Address to listen on."""
    port: int
    """gRPC port."""
    metrics_port: int
    """Port of /metrics; 0 disables it."""
    max_message_bytes: int
    """Maximum bytes per message. gRPC itself rejects larger messages."""
    limits: ServerLimits
    """Limits on callers."""
    grace_s: float
    """Maximum time for calls in progress to finish at shutdown."""
    drain_s: float
    """Time to accept calls after health reports NOT_SERVING, so that load balancers notice."""
    check_interval_s: float
    """Interval of the health checks of dependencies."""
    log_level: str
    """debug, info, warning or error."""
    tls_certificate_file: str
    """Certificate chain in PEM format. Empty: no TLS, for a service mesh or a single machine."""
    tls_key_file: str
    """Private key of the certificate in PEM format."""

    @classmethod
    def from_env(
        cls,
        env: Env,
        *,
        port: int,
        metrics_port: int,
        max_message_bytes: int,
        caller_share: float = 1.0,
        max_buffered_bytes: int = 512 * MIB,
        min_ping_interval_s: float = 1.0,
    ) -> ServerSettings:
        """Read the settings from environment variables; the arguments are defaults.

        The default limits are those of internal services: their few callers are trusted.

        Raises:
            SettingsError: a variable is invalid or out of range.
        """
        return cls(
            host=env.text("HOST", "127.0.0.1"),
            port=env.integer("PORT", port),
            metrics_port=env.integer("METRICS_PORT", metrics_port),
            max_message_bytes=env.integer("MAX_MESSAGE_BYTES", max_message_bytes),
            limits=ServerLimits.from_env(
                env,
                caller_share=caller_share,
                max_buffered_bytes=max_buffered_bytes,
                min_ping_interval_s=min_ping_interval_s,
            ),
            grace_s=env.number("GRACE_S", 10.0),
            drain_s=env.number("DRAIN_S", 0.0),
            check_interval_s=env.number("CHECK_INTERVAL_S", 1.0),
            log_level=env.text("LOG_LEVEL", "info"),
            tls_certificate_file=env.text("TLS_CERTIFICATE_FILE", ""),
            tls_key_file=env.text("TLS_KEY_FILE", ""),
        )


@dataclass(frozen=True, kw_only=True)
class Service:
    """Description of a service for `serve`."""

    name: str
    """Short name for logs: "gateway"."""
    descriptor_names: Sequence[str]
    """Full names of the gRPC services, for reflection and health."""
    register: Callable[[grpc.aio.Server], None]
    """Adds the servicers to a server."""
    settings: ServerSettings
    check: Callable[[], Awaitable[None]]
    """Raises an exception while a dependency is unhealthy."""
    close: Callable[[], Awaitable[None]]
    """Releases all resources, after the last call."""
    authorize: Authorize | None = None
    """Check of each call; None accepts all calls."""
    admission: Admission | None = None
    """Limit of the calls in progress; None admits all calls."""
    max_request_bytes: Mapping[str, int] = field(default_factory=dict)
    """Maximum bytes of a request by full method name, if less than `max_message_bytes`."""


class RunningServer:
    """A started server. Call `stop` once."""

    def __init__(
        self,
        service: Service,
        server: grpc.aio.Server,
        health: HealthServicer,
        guard: FloodGuard,
    ) -> None:
        self._service = service
        self._server = server
        self._health = health
        self._watch = asyncio.create_task(self._watch_dependencies())
        self._guard = asyncio.create_task(guard.run())

    async def stop(self) -> None:
        """Report NOT_SERVING, drain, let calls finish, and release all resources."""
        settings = self._service.settings
        for task in (self._watch, self._guard):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(settings.drain_s)
        await self._server.stop(settings.grace_s)
        await self._service.close()

    async def _watch_dependencies(self) -> None:
        reported: int | None = None
        while True:
            status = await self._status()
            if status != reported:
                for name in ("", *self._service.descriptor_names):
                    await self._health.set(name, status)
                metrics.HEALTHY.set(status == SERVING)
                logger().info("health.changed", status=ServingStatus.Name(status))
                reported = status
            # Check an unhealthy service more often: callers wait for it.
            interval_s = self._service.settings.check_interval_s
            await asyncio.sleep(interval_s if status == SERVING else min(0.2, interval_s))

    async def _status(self) -> int:
        try:
            async with asyncio.timeout(self._service.settings.check_interval_s + 1):
                await self._service.check()
        except Exception as error:  # noqa: BLE001  # any error means unhealthy
            logger().debug("health.check_failed", error=str(error))
            return int(NOT_SERVING)
        return int(SERVING)


async def start(service: Service) -> RunningServer:
    """Start a server. Health reports NOT_SERVING until the dependencies are healthy."""
    settings = service.settings
    allow_files(settings.limits.max_connections)
    interceptor = CallInterceptor(
        service.authorize,
        service.admission,
        limits=settings.limits,
        port=settings.port,
        max_message_bytes=settings.max_message_bytes,
        max_request_bytes=service.max_request_bytes,
    )
    server = grpc.aio.server(
        interceptors=[interceptor],
        options=[
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", settings.max_message_bytes),
            ("grpc.so_reuseport", 0),
            *settings.limits.grpc_options(),
        ],
    )
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    service.register(server)
    channelz.add_channelz_servicer(server)
    reflection.enable_server_reflection(
        (*service.descriptor_names, "grpc.health.v1.Health", reflection.SERVICE_NAME), server
    )
    for name in ("", *service.descriptor_names):
        await health.set(name, NOT_SERVING)
    await health.set(LIVENESS, SERVING)
    _listen(server, settings)
    await server.start()
    metrics.export_metrics(settings.host, settings.metrics_port)
    logger().info("server.listening", host=settings.host, port=settings.port)
    return RunningServer(service, server, health, interceptor.flood_guard())


def _listen(server: grpc.aio.Server, settings: ServerSettings) -> None:
    address = f"{settings.host}:{settings.port}"
    if not settings.tls_certificate_file:
        server.add_insecure_port(address)
        return
    pair = (
        Path(settings.tls_key_file).read_bytes(),
        Path(settings.tls_certificate_file).read_bytes(),
    )
    server.add_secure_port(address, grpc.ssl_server_credentials([pair]))


async def serve(service: Service) -> None:
    """Run a service until SIGTERM or SIGINT, then stop it gracefully."""
    configure_logs(service.name, service.settings.log_level)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    running = await start(service)
    await stopping.wait()
    logger().info("server.stopping")
    await running.stop()
    logger().info("server.stopped")
