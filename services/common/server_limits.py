"""Limits of a gRPC server on its callers: connections, calls, bytes and time."""

from __future__ import annotations

import resource
from dataclasses import dataclass

from imagesearch_services.common.env import Env, SettingsError
from imagesearch_services.common.logs import logger

OTHER_FILES = 1024
"""Files that a service opens in addition to its connections, at most."""
MIB = 1024 * 1024
UNREAD_BYTES = 64 * 1024
"""Bytes of a message that gRPC receives before the service asks for the message."""


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """Limits of a gRPC server. The environment variable of each has the name in capitals."""

    max_connections: int = 2000
    """Maximum open connections; further ones are closed at once. Each takes one of the
    files that `ulimit -n` allows: the service raises that limit, and warns if it can't."""
    max_streams_per_connection: int = 256
    """Maximum concurrent calls of one connection. Clients delay further calls."""
    max_open_calls: int = 1000
    """Maximum calls whose request is arriving, that are in progress or whose response is unread;
    further ones fail with OVERLOADED."""
    max_buffered_bytes: int = 192 * MIB
    """Maximum bytes of requests that arrive or are in progress, and of responses that the caller
    has not received; further calls fail with OVERLOADED. A response counts twice, since gRPC
    copies it."""
    caller_share: float = 0.5
    """Maximum share of one caller in `max_open_calls` and in `max_buffered_bytes`, above 0 and at
    most 1. Callers are told apart by their token, without tokens by their address."""
    read_timeout_s: float = 10.0
    """Maximum time without a byte of an incomplete request, in seconds; then the call fails with
    CALLER_TOO_SLOW."""
    write_timeout_s: float = 60.0
    """Maximum time to send a response message, in seconds, in addition to the time that
    `min_bytes_per_s` allows. Then the connection of the caller is closed: gRPC has no other way
    to free a response that the caller does not read."""
    min_bytes_per_s: int = 64 * 1024
    """Minimum transfer rate of requests and of response messages, in bytes per second."""
    max_metadata_bytes: int = 16 * 1024
    """Maximum bytes of the headers of a call. gRPC refuses larger ones with RESOURCE_EXHAUSTED,
    and some of those above half of it."""
    keepalive_time_s: float = 60.0
    """Time without data on a connection after which the server sends a ping, in seconds."""
    keepalive_timeout_s: float = 20.0
    """Maximum time to answer a ping, in seconds; then the connection is closed."""
    min_ping_interval_s: float = 10.0
    """Minimum time between the pings of a client, in seconds; after two faster ones the connection
    is closed. The other services of the suite ping more often than callers may."""
    handshake_timeout_s: float = 10.0
    """Maximum time to set up a connection, TLS included, in seconds."""
    max_connection_idle_s: float = 120.0
    """Maximum time of a connection without calls, in seconds."""
    max_connection_age_s: float = 300.0
    """Maximum age of a connection, in seconds. Clients reconnect, resolve names again and find new
    servers."""
    max_connection_age_grace_s: float = 300.0
    """Time for calls in progress after the maximum age, in seconds; then they are cancelled."""

    @classmethod
    def from_env(
        cls,
        env: Env,
        *,
        caller_share: float,
        max_buffered_bytes: int,
        min_ping_interval_s: float,
    ) -> ServerLimits:
        """Read the limits from environment variables.

        Args:
            env: variables of the service.
            caller_share: default of CALLER_SHARE.
            max_buffered_bytes: default of MAX_BUFFERED_BYTES.
            min_ping_interval_s: default of MIN_PING_INTERVAL_S.

        Raises:
            SettingsError: a variable is invalid or out of range.
        """
        limits = cls(
            max_connections=env.integer("MAX_CONNECTIONS", cls.max_connections),
            max_streams_per_connection=env.integer(
                "MAX_STREAMS_PER_CONNECTION", cls.max_streams_per_connection
            ),
            max_open_calls=env.integer("MAX_OPEN_CALLS", cls.max_open_calls),
            max_buffered_bytes=env.integer("MAX_BUFFERED_BYTES", max_buffered_bytes),
            caller_share=env.number("CALLER_SHARE", caller_share),
            read_timeout_s=env.number("READ_TIMEOUT_S", cls.read_timeout_s),
            write_timeout_s=env.number("WRITE_TIMEOUT_S", cls.write_timeout_s),
            min_bytes_per_s=env.integer("MIN_BYTES_PER_S", cls.min_bytes_per_s),
            max_metadata_bytes=env.integer("MAX_METADATA_BYTES", cls.max_metadata_bytes),
            keepalive_time_s=env.number("KEEPALIVE_TIME_S", cls.keepalive_time_s),
            keepalive_timeout_s=env.number("KEEPALIVE_TIMEOUT_S", cls.keepalive_timeout_s),
            min_ping_interval_s=env.number("MIN_PING_INTERVAL_S", min_ping_interval_s),
            handshake_timeout_s=env.number("HANDSHAKE_TIMEOUT_S", cls.handshake_timeout_s),
            max_connection_idle_s=env.number("MAX_CONNECTION_IDLE_S", cls.max_connection_idle_s),
            max_connection_age_s=env.number("MAX_CONNECTION_AGE_S", cls.max_connection_age_s),
            max_connection_age_grace_s=env.number(
                "MAX_CONNECTION_AGE_GRACE_S", cls.max_connection_age_grace_s
            ),
        )
        for name, value in vars(limits).items():
            if not 0 < value < float("inf"):
                raise SettingsError(f"{env.prefix}{name.upper()} must be above 0, not {value}")
        if limits.caller_share > 1:
            raise SettingsError(f"{env.prefix}CALLER_SHARE must be at most 1")
        return limits

    def grpc_options(self) -> list[tuple[str, int]]:
        """Return the options of a gRPC server that enforce the limits on connections."""
        return [
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.max_concurrent_streams", self.max_streams_per_connection),
            ("grpc.max_metadata_size", self.max_metadata_bytes // 2),
            ("grpc.absolute_max_metadata_size", self.max_metadata_bytes),
            # gRPC estimates the bandwidth otherwise, and receives up to 4 MiB of each message
            # before the service asks for it.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", UNREAD_BYTES),
            ("grpc.keepalive_time_ms", _ms(self.keepalive_time_s)),
            ("grpc.keepalive_timeout_ms", _ms(self.keepalive_timeout_s)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _ms(self.min_ping_interval_s)),
            ("grpc.http2.max_ping_strikes", 2),
            ("grpc.server_handshake_timeout_ms", _ms(self.handshake_timeout_s)),
            ("grpc.http2.settings_timeout", _ms(self.handshake_timeout_s)),
            ("grpc.max_connection_idle_ms", _ms(self.max_connection_idle_s)),
            ("grpc.max_connection_age_ms", _ms(self.max_connection_age_s)),
            ("grpc.max_connection_age_grace_ms", _ms(self.max_connection_age_grace_s)),
        ]


def allow_files(max_connections: int) -> None:
    """Raise the limit on open files of this process, so that all connections fit."""
    needed = max_connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < needed:
            logger().warning(
                "server.few_files", allowed=allowed, needed=needed, max_connections=max_connections
            )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
