"""Client of EmbedQuery: a query picture that is sent once and embedded in steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc.aio

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch_services.common import type_messages
from imagesearch_services.common.context import REQUEST_ID_HEADER, request_id, time_remaining_s
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.status import from_rpc_error
from imagesearch_services.gateway.clients.embedding_messages import (
    read_embedded_picture,
    waited_s,
)
from imagesearch_services.gateway.ports import Embedded

PEER = Reason.EMBEDDING_UNAVAILABLE

Call = grpc.aio.StreamStreamCall[pb.EmbedQueryRequest, pb.EmbedQueryResponse]


class QueryStream:
    """An open stream; each step sends one request and awaits its response."""

    def __init__(
        self, start: Callable[[], Call], content: bytes, on_turn: Callable[[float], None]
    ) -> None:
        self._start = start
        self._on_turn = on_turn
        self._content = content
        self._call: Call | None = None

    async def embed(self, spaces: Sequence[str], *, max_proposed_regions: int = 0) -> Embedded:
        """Embed the whole picture, or its proposed regions.

        Raises:
            ServiceError: Embedding's own error, or EMBEDDING_UNAVAILABLE.
        """
        request = pb.EmbedQueryRequest(spaces=spaces, max_proposed_regions=max_proposed_regions)
        if self._call is not None:
            try:
                return await _step(self._call, request)
            except ServiceError as error:
                # gRPC itself retries a stream only before its first response. If the connection
                # broke after that, send the picture again on a new stream.
                if error.reason is not PEER:
                    raise
        # Fill the message in place: assigning a message to a field copies it, and pictures are
        # large.
        request.image.content = self._content
        embedded = await self._first_step(request)
        self._on_turn(waited_s(embedded.timings))
        return embedded

    async def _first_step(self, request: pb.EmbedQueryRequest) -> Embedded:
        """Send the picture; send it again if the connection fails meanwhile.

        If no address of Embedding is healthy any more, the second attempt gets the precise error.
        """
        self._call = self._start()
        try:
            return await _step(self._call, request)
        except ServiceError as error:
            if error.reason is not PEER:
                raise
        self._call = self._start()
        return await _step(self._call, request)

    async def close(self) -> None:
        """End the stream after the last step, without waiting for its status."""
        if self._call is not None:
            await self._call.done_writing()

    def cancel(self) -> None:
        """Cancel the step that is running."""
        if self._call is not None:
            self._call.cancel()


class QueryStreams:
    """Opens EmbedQuery streams."""

    def __init__(
        self, method: Callable[..., Call], timeout_s: float, *, on_turn: Callable[[float], None]
    ) -> None:
        self._method = method
        self._on_turn = on_turn
        self._timeout_s = timeout_s
        self._open_calls: set[Any] = set()

    @asynccontextmanager
    async def open(self, content: bytes) -> AsyncIterator[QueryStream]:
        """Open a stream for a picture; nothing is sent before the first step."""
        stream = QueryStream(self._start, content, self._on_turn)
        try:
            yield stream
            await stream.close()
        except BaseException:
            stream.cancel()
            raise

    def _start(self) -> Call:
        call = self._method(
            timeout=time_remaining_s(self._timeout_s),
            metadata=((REQUEST_ID_HEADER, request_id()),),
        )
        # gRPC cancels a call that is garbage-collected before its status has arrived, and a search
        # does not wait for the status.
        self._open_calls.add(call)
        call.add_done_callback(self._open_calls.discard)
        return call


async def _step(call: Call, request: pb.EmbedQueryRequest) -> Embedded:
    try:
        with suppress(asyncio.InvalidStateError):  # the call has ended: `read` raises its status
            await call.write(request)
        response = await call.read()
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, peer=PEER) from error
    if not isinstance(response, pb.EmbedQueryResponse):
        raise ServiceError(Reason.INTERNAL, "Embedding ended the stream without a response")
    return Embedded(
        [read_embedded_picture(response.result)], type_messages.read_timings(response.timings)
    )
