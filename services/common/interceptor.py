"""Interceptor of all calls: authorizes and admits them, then reads their message.

It also sets their context, counts and logs them, and converts their errors.

gRPC reads the request of a unary method before it calls the servicer. The interceptor therefore
presents every method to gRPC as one with a stream of requests, which is the same on the wire, and
reads the message itself.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio

from imagesearch_services.common.call import Call, CallLimiter
from imagesearch_services.common.call_budget import CallBudget
from imagesearch_services.common.connections import Connections
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.flood_guard import FloodGuard
from imagesearch_services.common.server_limits import ServerLimits

if TYPE_CHECKING:
    # These classes are generic only in their type stubs.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
Authorize = Callable[[str, dict[str, str]], str]
"""Check of a call by full method name and metadata. Returns the name of the caller, and raises
ServiceError to reject the call."""


class Admission(Protocol):
    """Limit of the calls in progress, by full method name, metadata and address of the peer.

    Both methods raise ServiceError to refuse a call.
    """

    def check(self, method: str, metadata: dict[str, str], peer: str, /) -> None:
        """Refuse a call before its request is read, if it would be refused now."""

    def admit(
        self, method: str, metadata: dict[str, str], peer: str, /
    ) -> AbstractContextManager[None]:
        """Count a call, whose request is complete, while it is in progress."""


INFRASTRUCTURE = ("/grpc.health.", "/grpc.reflection.", "/grpc.channelz.")
"""Prefixes of gRPC's own services: open to all callers, neither counted nor logged."""
INFRASTRUCTURE_LIMITS = ServerLimits(
    max_open_calls=500, max_buffered_bytes=16 * 1024 * 1024, read_timeout_s=3.0
)
"""Limits of gRPC's own services, apart from those of other calls: a health check must succeed
when a server is busy."""
MAX_INFRASTRUCTURE_BYTES = 64 * 1024
"""Maximum bytes of a request of gRPC's own services."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Runs each call within the limits of the server and converts exceptions to gRPC statuses.

    Args:
        authorize: check of each call; None accepts all calls.
        admission: limit of the calls in progress; None admits all calls.
        limits: limits on callers.
        port: port of the server.
        max_message_bytes: maximum bytes of a message.
        max_request_bytes: maximum bytes of a request, by full method name; `max_message_bytes` for
            other methods.
    """

    def __init__(
        self,
        authorize: Authorize | None = None,
        admission: Admission | None = None,
        *,
        limits: ServerLimits | None = None,
        port: int = 0,
        max_message_bytes: int = 4 * 1024 * 1024,
        max_request_bytes: Mapping[str, int] | None = None,
    ) -> None:
        self._authorize = authorize
        self._admission = admission
        self._max_message_bytes = max_message_bytes
        self._max_request_bytes = max_request_bytes or {}
        self._connections = Connections(port)
        self._limiter, self._infrastructure = (
            CallLimiter(CallBudget(chosen), self._connections, max_message_bytes)
            for chosen in (limits or ServerLimits(), INFRASTRUCTURE_LIMITS)
        )

    def flood_guard(self) -> FloodGuard:
        """Return the guard of the connections of the server."""
        watches = [self._limiter.requests, self._infrastructure.requests]
        return FloodGuard(self._connections, watches)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return None
        if handler.response_streaming:
            return self._streaming(method, handler)
        return self._unary(method, handler)

    def _unary(self, method: str, handler: Any) -> Handler:
        serve = handler.stream_unary if handler.request_streaming else handler.unary_unary

        async def served(_: object, context: Context) -> Any:
            with self._call(method, context) as call:
                try:
                    request = await self._request(call, handler, context)
                    with self._admitted(call, context):
                        response = await serve(request, context)
                    return call.answer(handler.response_serializer(response))
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # becomes a status
                    await call.abort(error)

        return grpc.stream_unary_rpc_method_handler(served)

    def _streaming(self, method: str, handler: Any) -> Handler:
        serve = handler.stream_stream if handler.request_streaming else handler.unary_stream
        # The health servicer writes to the context itself, instead of yielding responses.
        writes_itself = inspect.iscoroutinefunction(serve)

        async def served(_: object, context: Context) -> None:
            with self._call(method, context) as call:
                try:
                    request = await self._request(call, handler, context)
                    if writes_itself:
                        await serve(request, context)
                        return
                    with self._admitted(call, context):
                        async with aclosing(serve(request, context)) as responses:
                            async for response in responses:
                                await call.write(handler.response_serializer(response))
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # becomes a status
                    await call.abort(error)

        serializer = handler.response_serializer if writes_itself else None
        return grpc.stream_stream_rpc_method_handler(served, None, serializer)

    def _call(self, method: str, context: Context) -> Call:
        if method.startswith(INFRASTRUCTURE):
            return Call(method, context, self._infrastructure, is_logged=False)
        return Call(method, context, self._limiter)

    def _admitted(self, call: Call, context: Context) -> AbstractContextManager[None]:
        if self._admission is None or call.method.startswith(INFRASTRUCTURE):
            return nullcontext()
        return self._admission.admit(call.method, self._verified(call), context.peer())

    def _verified(self, call: Call) -> dict[str, str]:
        """Return the metadata of a call; without a check of tokens they identify nobody."""
        return call.metadata if self._authorize is not None else {}

    async def _request(self, call: Call, handler: Any, context: Context) -> Any:
        """Authorize and admit a call, then return its request, or the iterator of its requests."""
        if call.method.startswith(INFRASTRUCTURE):
            caller, max_bytes = None, MAX_INFRASTRUCTURE_BYTES
        else:
            caller = self._authorize(call.method, call.metadata) if self._authorize else None
            max_bytes = self._max_request_bytes.get(call.method, self._max_message_bytes)
            if self._admission is not None:
                self._admission.check(call.method, self._verified(call), context.peer())
        call.admit(caller)
        if handler.request_streaming:
            return call.requests(handler.request_deserializer, max_bytes)
        request = await call.read(handler.request_deserializer, max_bytes)
        if request is None:
            raise ServiceError(Reason.FIELD_INVALID, "the call has no request message")
        return request
