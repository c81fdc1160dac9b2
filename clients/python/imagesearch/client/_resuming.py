"""Taking up a stream where it broke off."""

from __future__ import annotations

import grpc

from imagesearch.client._errors import ImageSearchError
from imagesearch.gateway.v1.search_pb2 import FindDuplicatesRequest, FindDuplicatesResponse

MAX_TRIES = 4
"""Without anything received in between."""
FIRST_WAIT_S = 0.5
PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


class Resuming:
    """Follows a stream, and keeps its request ready for the next try."""

    def __init__(self, request: FindDuplicatesRequest) -> None:
        self._request = request
        self._failures = 0
        self._has_received = False
        self.is_done = False
        """The last message of all has come."""

    def received(self, message: FindDuplicatesResponse) -> None:
        """Take note of how far the stream has come."""
        self._failures = 0
        self._has_received = True
        self._request.page_token = message.next_page_token
        self.is_done = not message.next_page_token

    def ended(self) -> None:
        """Take note of a stream that ended well; one that brought nothing would do so again."""
        self.is_done = self.is_done or not self._has_received
        self._has_received = False

    def wait_s(self, error: ImageSearchError) -> float:
        """Say how long to wait before the next try.

        Raises:
            ImageSearchError: that there is to be none.
        """
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED and self._has_received:
            # It took long, and came further: this is what a page token is for.
            self._has_received = False
            return 0.0
        self._failures += 1
        if error.code not in PASSING or self._failures >= MAX_TRIES:
            raise error
        return error.retry_after_s or FIRST_WAIT_S * 2 ** (self._failures - 1)
