"""Responses that the caller does not read."""

from __future__ import annotations

from contextlib import ExitStack

import grpc

from imagesearch.gateway.v1 import image_pb2, image_search_service_pb2_grpc, search_pb2
from tests.integration.callers.conftest import PAGE_BYTES, SERVICE
from tests.integration.callers.test_requests import ONE, RESOURCE_EXHAUSTED, served
from tests.raw_http2 import RawConnection, message

LIST, FIND = f"/{SERVICE}/ListImages", f"/{SERVICE}/FindDuplicates"
REQUESTS = {
    LIST: message(image_pb2.ListImagesRequest(parent="a").SerializeToString()),
    FIND: message(search_pb2.FindDuplicatesRequest(parent="a").SerializeToString()),
}


def ask(connection: RawConnection, method: str) -> int:
    stream = connection.open(method, ONE)
    connection.send(stream, REQUESTS[method], end=True)
    return stream


def test_the_connection_of_a_caller_that_reads_no_response_is_closed(target: str) -> None:
    with RawConnection(target, window_bytes=0) as connection:
        ask(connection, LIST)
        assert connection.wait_closed(10)


def test_the_connection_of_a_caller_that_reads_no_stream_is_closed(target: str) -> None:
    with RawConnection(target, window_bytes=0) as connection:
        ask(connection, FIND)
        assert connection.wait_closed(10)


def test_unread_responses_over_the_share_of_a_caller_are_refused_until_they_end(
    target: str,
) -> None:
    with ExitStack() as stack:
        calls = []
        for _ in range(8):
            connection = stack.enter_context(RawConnection(target, window_bytes=0))
            calls.append((connection, ask(connection, LIST)))
        assert served(target, "two")
        statuses = [connection.status(stream) for connection, stream in calls]
    assert RESOURCE_EXHAUSTED in statuses
    assert None in statuses
    assert served(target, "one")


def test_a_caller_that_reads_gets_large_responses(target: str) -> None:
    with grpc.insecure_channel(target) as channel:
        stub = image_search_service_pb2_grpc.ImageSearchServiceStub(channel)
        metadata = [("authorization", "Bearer one")]
        request = search_pb2.FindDuplicatesRequest()
        parts = list(stub.FindDuplicates(request, metadata=metadata, timeout=30))
    assert {len(part.next_page_token) for part in parts} == {PAGE_BYTES}
