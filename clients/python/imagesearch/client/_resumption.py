"""Resumption of a stream that breaks."""

from __future__ import annotations

import grpc

from imagesearch.client._errors import ImageSearchError
from imagesearch.gateway.v1.search_pb2 import FindDuplicatesRequest, FindDuplicatesResponse

MAX_ATTEMPTS = 4
"""Maximum consecutive attempts that receive no message."""
FIRST_DELAY_S = 0.5
"""Delay before the second attempt, in seconds; it doubles with each attempt."""
TRANSIENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""Status codes after which the stream is attempted again."""


class Resumption:
    """Tracks a stream and updates its request for the next attempt."""

    def __init__(self, request: FindDuplicatesRequest) -> None:
        self._request = request
        self._failures = 0
        self._has_received = False
        self.is_done = False
        """Whether the last message was received."""

    def received(self, message: FindDuplicatesResponse) -> None:
        """Record a message: the next attempt continues after it."""
        self._failures = 0
        self._has_received = True
        self._request.page_token = message.next_page_token
        self.is_done = not message.next_page_token

    def end_of_stream(self) -> None:
        """Record the regular end of an attempt. An attempt without messages ends the stream."""
        self.is_done = self.is_done or not self._has_received
        self._has_received = False

    def delay_s(self, error: ImageSearchError) -> float:
        """Return the delay before the next attempt, in seconds.

        Raises:
            ImageSearchError: the error is permanent, or too many attempts failed.
        """
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED and self._has_received:
            # The scan has advanced, so the next attempt continues at the page token.
            self._has_received = False
            return 0.0
        self._failures += 1
        if error.code not in TRANSIENT or self._failures >= MAX_ATTEMPTS:
            raise error
        return error.retry_after_s or FIRST_DELAY_S * 2 ** (self._failures - 1)
