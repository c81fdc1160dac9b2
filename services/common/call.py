"""A call in progress: its request, its response, its place in the budget and its error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from imagesearch_services.common import metrics
from imagesearch_services.common.call_budget import CallBudget, Reservation
from imagesearch_services.common.connections import Connections, address, host
from imagesearch_services.common.context import REQUEST_ID_HEADER, begin_call, request_id
from imagesearch_services.common.errors import Reason, ServiceError, not_implemented
from imagesearch_services.common.logs import logger
from imagesearch_services.common.reading import RequestWatch
from imagesearch_services.common.status import CODES, to_grpc

if TYPE_CHECKING:
    # These classes are generic only in their type stubs.
    Context = grpc.aio.ServicerContext[Any, Any]

LOGGED_CHARACTERS = 32
"""Maximum characters of an invalid request id that are logged."""
RESPONSE_COPIES = 2
"""Copies of a response in memory until it is sent: the bytes, and gRPC's copy of them."""


class CallLimiter:
    """What the calls of a server share to enforce its limits.

    Args:
        budget: calls and bytes in progress.
        connections: connections of the server.
        max_message_bytes: maximum bytes of a message.
    """

    def __init__(
        self, budget: CallBudget, connections: Connections, max_message_bytes: int
    ) -> None:
        self.budget = budget
        self.requests = RequestWatch(budget, connections, max_message_bytes)
        self._connections = connections

    def close_later(self, peer: str, size_bytes: int) -> asyncio.TimerHandle:
        """Close the connection of a peer that does not read a message in time.

        Cancel the returned timer when the message is sent.
        """
        limits = self.budget.limits
        delay_s = limits.write_timeout_s + size_bytes / limits.min_bytes_per_s
        return asyncio.get_running_loop().call_later(delay_s, self._close, peer)

    def _close(self, peer: str) -> None:
        if not self._connections.close(peer):
            self._connections.refresh()
            self._connections.close(peer)
        logger().warning("connection.closed", peer=peer, reason=Reason.CALLER_TOO_SLOW.value)


class Call:
    """A call in progress. Enter it for the time of the servicer's work."""

    def __init__(
        self, method: str, context: Context, limiter: CallLimiter, *, is_logged: bool = True
    ) -> None:
        self.method = method
        self.metadata = {
            key: value
            for key, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        }
        self._context = context
        self._limiter = limiter
        self._is_logged = is_logged
        self._peer = address(context.peer())
        limiter.requests.note_call(self._peer)
        self._reservation: Reservation | None = None
        self._request_bytes = 0
        self._code = "OK"
        self._started_s = 0.0
        self._aborting: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._started_s = time.perf_counter()
        given = self.metadata.get(REQUEST_ID_HEADER)
        chosen = begin_call(given, self._context.time_remaining())
        if given is not None and given != chosen and self._is_logged:
            logger().warning("request_id.replaced", given=given[:LOGGED_CHARACTERS])
        if self._is_logged:
            metrics.IN_FLIGHT.inc()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_logged:
            return
        metrics.IN_FLIGHT.dec()
        duration_s = time.perf_counter() - self._started_s
        metrics.CALLS.labels(self.method, self._code).inc()
        metrics.DURATION.labels(self.method).observe(duration_s)
        logger().info(
            "rpc.finished",
            method=self.method,
            code=self._code,
            duration_ms=round(duration_s * 1e3, 2),
        )

    def admit(self, caller: str | None) -> None:
        """Reserve a place for the call, which it keeps until its response is sent.

        Args:
            caller: name of the authorized caller; None: the host of the peer.

        Raises:
            ServiceError: OVERLOADED.
        """
        reservation = self._limiter.budget.admit(caller or host(self._peer))
        self._reservation = reservation
        self._when_sent(reservation.close)

    async def read(self, parse: Callable[[bytes], Any], max_bytes: int) -> Any:
        """Read the next request message; None after the last one.

        Raises:
            ServiceError: FIELD_INVALID, CALLER_TOO_SLOW, OVERLOADED.
        """
        reservation = self._admitted()
        reading = self._limiter.requests.start(self._peer, reservation.caller, self._abort_reading)
        size_bytes = None
        try:
            message = await self._context.read()
            if message is grpc.aio.EOF:
                return None
            size_bytes = len(message)
        finally:
            self._limiter.requests.finish(reading, size_bytes)
        self._request_bytes = size_bytes
        reservation.resize(size_bytes)
        if size_bytes > max_bytes:
            raise _too_large(self.method, size_bytes, max_bytes)
        try:
            return parse(message)
        except DecodeError as error:
            raise ServiceError(
                Reason.FIELD_INVALID, f"the message is not a valid request of {_name(self.method)}"
            ) from error

    async def requests(self, parse: Callable[[bytes], Any], max_bytes: int) -> AsyncIterator[Any]:
        """Read all request messages."""
        while (message := await self.read(parse, max_bytes)) is not None:
            yield message

    def answer(self, response: bytes) -> bytes:
        """Return the response of a call that gRPC is about to send.

        Raises:
            ServiceError: OVERLOADED.
        """
        timer = self._reserve_response(response, self._request_bytes)
        self._when_sent(timer.cancel)
        return response

    async def write(self, response: bytes) -> None:
        """Send one of several response messages.

        Raises:
            ServiceError: OVERLOADED.
        """
        timer = self._reserve_response(response, 0)
        try:
            await self._context.write(response)
        finally:
            timer.cancel()
        self._admitted().resize(self._request_bytes)

    def _reserve_response(self, response: bytes, released_bytes: int) -> asyncio.TimerHandle:
        held_bytes = self._request_bytes - released_bytes
        self._admitted().resize(held_bytes + RESPONSE_COPIES * len(response))
        return self._limiter.close_later(self._peer, len(response))

    def _admitted(self) -> Reservation:
        if self._reservation is None:
            raise RuntimeError("the call was not admitted")
        return self._reservation

    def _when_sent(self, callback: Callable[[], None]) -> None:
        """Call back when the last byte of the response is sent, or the call ended otherwise."""

        def done(_: Context) -> None:
            callback()

        self._context.add_done_callback(done)  # type: ignore[arg-type]  # the stub has a class

    def _abort_reading(self, error: ServiceError) -> None:
        self._aborting = asyncio.create_task(self._end(error))

    async def _end(self, error: ServiceError) -> None:
        try:
            await self.abort(error)
        except grpc.aio.BaseError:
            # The abort reaches the servicer too, or the caller is gone.
            return

    async def abort(self, error: BaseException) -> None:
        """Abort the call with the status of an error."""
        if isinstance(error, asyncio.CancelledError | grpc.aio.InternalError):
            # The caller cancelled the call, its deadline passed or its connection ended: nobody
            # reads a response.
            self._code = "CANCELLED"
            raise asyncio.CancelledError from error
        if isinstance(error, grpc.aio.AbortError):
            self._code = "ABORTED" if self._code == "OK" else self._code
            raise error
        if isinstance(error, NotImplementedError):
            # Generated base classes raise this for methods without an implementation.
            error = not_implemented(_name(self.method))
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


def _name(method: str) -> str:
    return method.rpartition("/")[2]


def _too_large(method: str, size_bytes: int, max_bytes: int) -> ServiceError:
    return ServiceError(
        Reason.FIELD_INVALID,
        f"the request has {size_bytes} bytes, the limit of {_name(method)} is {max_bytes}",
        metadata={"limit": str(max_bytes), "actual": str(size_bytes), "unit": "bytes"},
    )
