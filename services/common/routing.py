"""A channel that calls the healthy addresses of a service, and any address if none is healthy.

gRPC watches the health of each address and calls only those that are SERVING. If none is, it fails
calls without sending them. This channel then sends them anyway, since an unhealthy service still
says precisely what is wrong, and may answer calls that do not need what it lacks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, Self, cast

import grpc
import grpc.aio
from grpc_status import rpc_status


class HealthyFirstChannel(grpc.aio.Channel):
    """Sends each call over one of two channels to the same service."""

    def __init__(
        self, healthy: grpc.aio.Channel, unchecked: grpc.aio.Channel, reads: Collection[str]
    ) -> None:
        """Combine two channels.

        Args:
            healthy: channel that calls only healthy addresses.
            unchecked: channel that calls all addresses.
            reads: full names of the methods that may be called again, "/SERVICE/METHOD".
        """
        self._healthy = healthy
        self._unchecked = unchecked
        self._reads = frozenset(reads)

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        call = self._method("unary_unary", method, *args, **options)
        return self._repeated(call) if method in self._reads else call

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

    def _repeated(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method that is called again if the last healthy address became unhealthy.

        gRPC repeats a failed read itself, but loses the precise error of the first attempt if no
        address is healthy by then.
        """

        async def call(*message: Any, **settings: Any) -> Any:
            started_s = time.monotonic()
            checked = self._chosen() is self._healthy
            try:
                return await method(*message, **settings)
            except grpc.aio.AioRpcError as error:
                unsent = error.code() is grpc.StatusCode.UNAVAILABLE and not _has_details(error)
                if not (checked and unsent and self._chosen() is self._unchecked):
                    raise
            if settings.get("timeout") is not None:
                passed_s = time.monotonic() - started_s
                settings["timeout"] = max(0.0, settings["timeout"] - passed_s)
            return await method(*message, **settings)

        return call

    def _method(self, kind: str, *args: Any, **options: Any) -> Callable[..., Any]:
        methods = {
            channel: getattr(channel, kind)(*args, **options)
            for channel in (self._healthy, self._unchecked)
        }

        def call(*message: Any, **settings: Any) -> Any:
            return methods[self._chosen()](*message, **settings)

        return call


def _has_details(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the error comes from a service of the suite."""
    return rpc_status.from_call(cast("grpc.Call", error)) is not None
