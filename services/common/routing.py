"""A channel that calls the healthy addresses of a service, and any address if none is healthy.

gRPC watches the health of each address and calls only those that are SERVING. If none is, it fails
calls without sending them. This channel then sends them anyway, since an unhealthy service still
says precisely what is wrong, and may answer calls that do not need what it lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import grpc
import grpc.aio


class HealthyFirstChannel(grpc.aio.Channel):
    """Sends each call over one of two channels to the same service."""

    def __init__(self, healthy: grpc.aio.Channel, unchecked: grpc.aio.Channel) -> None:
        """Combine two channels.

        Args:
            healthy: channel that calls only healthy addresses.
            unchecked: channel that calls all addresses.
        """
        self._healthy = healthy
        self._unchecked = unchecked

    def unary_unary(self, *args: Any, **options: Any) -> Any:
        return self._method("unary_unary", *args, **options)

    def unary_stream(self, *args: Any, **options: Any) -> Any:
        return self._method("unary_stream", *args, **options)

    def stream_unary(self, *args: Any, **options: Any) -> Any:
        return self._method("stream_unary", *args, **options)

    def stream_stream(self, *args: Any, **options: Any) -> Any:
        return self._method("stream_stream", *args, **options)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._chosen().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._chosen().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._chosen().channel_ready()

    async def close(self, grace: float | None = None) -> None:
        await self._healthy.close(grace)
        await self._unchecked.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _chosen(self) -> grpc.aio.Channel:
        state = self._healthy.get_state(try_to_connect=True)
        none_healthy = state is grpc.ChannelConnectivity.TRANSIENT_FAILURE
        return self._unchecked if none_healthy else self._healthy

    def _method(self, kind: str, *args: Any, **options: Any) -> Callable[..., Any]:
        methods = {
            channel: getattr(channel, kind)(*args, **options)
            for channel in (self._healthy, self._unchecked)
        }

        def call(*message: Any, **settings: Any) -> Any:
            return methods[self._chosen()](*message, **settings)

        return call
