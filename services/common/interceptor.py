"""Interceptor of all calls: sets their context, counts and logs them, converts their errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from imagesearch_services.common import metrics
from imagesearch_services.common.context import REQUEST_ID_HEADER, begin_call, request_id
from imagesearch_services.common.errors import Reason, ServiceError, not_implemented
from imagesearch_services.common.logs import logger
from imagesearch_services.common.status import CODES, to_grpc

if TYPE_CHECKING:
    # These classes are generic only in their type stubs.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
Authorize = Callable[[str, dict[str, str]], None]
"""Check of a call by full method name and metadata. Raises ServiceError to reject the call."""
Admit = Callable[[str, dict[str, str], str], AbstractContextManager[None]]
"""Limit of the calls in progress, by full method name, metadata and address of the peer. Raises
ServiceError to refuse the call."""

INFRASTRUCTURE = ("/grpc.health.", "/grpc.reflection.", "/grpc.channelz.")
"""Prefixes of gRPC's own services: open to all callers, neither counted nor logged."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Runs each call in its own context and converts exceptions to gRPC statuses."""

    def __init__(self, authorize: Authorize | None = None, admit: Admit | None = None) -> None:
        self._authorize = authorize
        self._admit = admit

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(INFRASTRUCTURE):
            return handler
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(method, handler.stream_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(method, handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _unary(self, method: str, serve: Any) -> Any:
        async def served(request: Any, context: Context) -> Any:
            with _Call(method, context) as call:
                try:
                    self._check(call)
                    with self._admitted(call, context):
                        return await serve(request, context)
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # becomes a status
                    await call.abort(error)

        return served

    def _streaming(self, method: str, serve: Any) -> Any:
        async def served(request: Any, context: Context) -> AsyncIterator[Any]:
            with _Call(method, context) as call:
                try:
                    self._check(call)
                    with self._admitted(call, context):
                        async with aclosing(serve(request, context)) as responses:
                            async for response in responses:
                                yield response
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # becomes a status
                    await call.abort(error)

        return served

    def _check(self, call: _Call) -> None:
        if self._authorize is not None:
            self._authorize(call.method, call.metadata)

    def _admitted(self, call: _Call, context: Context) -> AbstractContextManager[None]:
        if self._admit is None:
            return nullcontext()
        return self._admit(call.method, call.metadata, context.peer())


class _Call:
    """A call in progress."""

    def __init__(self, method: str, context: Context) -> None:
        self.method = method
        self.metadata = {
            key: value
            for key, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        }
        self._context = context
        self._code = "OK"
        self._started_s = 0.0

    def __enter__(self) -> Self:
        self._started_s = time.perf_counter()
        begin_call(self.metadata.get(REQUEST_ID_HEADER), self._context.time_remaining())
        metrics.IN_FLIGHT.inc()
        return self

    def __exit__(self, *_: object) -> None:
        duration_s = time.perf_counter() - self._started_s
        metrics.IN_FLIGHT.dec()
        metrics.CALLS.labels(self.method, self._code).inc()
        metrics.DURATION.labels(self.method).observe(duration_s)
        logger().info(
            "rpc.finished",
            method=self.method,
            code=self._code,
            duration_ms=round(duration_s * 1e3, 2),
        )

    async def abort(self, error: BaseException) -> None:
        """Abort the call with the status of an error."""
        if isinstance(error, asyncio.CancelledError):
            # The caller cancelled the call or its deadline passed: nobody reads a response.
            self._code = "CANCELLED"
            raise error
        if isinstance(error, grpc.aio.AbortError):
            self._code = "ABORTED"
            raise error
        if isinstance(error, NotImplementedError):
            # Generated base classes raise this for methods without an implementation.
            error = not_implemented(self.method.rpartition("/")[2])
        if not isinstance(error, ServiceError):
            logger().error("rpc.unexpected_error", method=self.method, exc_info=error)
            error = ServiceError(
                Reason.INTERNAL,
                "internal error; see the log for this request id",
                metadata={"request_id": request_id()},
            )
        self._code = CODES[error.reason].name
        status = to_grpc(error)
        await self._context.abort(status.code, status.details, status.trailing_metadata)
