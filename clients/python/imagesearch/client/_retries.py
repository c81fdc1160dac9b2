"""Repetition of calls that an overloaded suite refused."""

from __future__ import annotations

import random
import time

from imagesearch.client._errors import ImageSearchError

MAX_ATTEMPTS = 5
"""Maximum attempts of one call."""
OVERLOADED = "OVERLOADED"
"""Reason of the refusals that are repeated: nothing was done, and capacity returns by itself."""
DEFAULT_DELAY_S = 0.5
"""Delay if the refusal has none, in seconds."""


class OverloadRetries:
    """Attempts of one call, within its deadline."""

    def __init__(self, timeout_s: float) -> None:
        self._deadline_s = time.monotonic() + timeout_s
        self._attempts = 0

    def remaining_s(self) -> float:
        """Return the deadline of the next attempt, in seconds from now."""
        return max(0.001, self._deadline_s - time.monotonic())

    def delay_s(self, error: ImageSearchError) -> float:
        """Return the delay before the next attempt, in seconds.

        It is that of the refusal or up to half more, so that the callers do not return together.

        Raises:
            ImageSearchError: the error is no overload, or the deadline or the number of attempts
                allows no other attempt.
        """
        self._attempts += 1
        if error.reason != OVERLOADED or self._attempts >= MAX_ATTEMPTS:
            raise error
        delay_s = with_jitter(error.retry_after_s or DEFAULT_DELAY_S)
        if delay_s >= self.remaining_s():
            raise error
        return delay_s


def with_jitter(delay_s: float) -> float:
    """Return a random delay, at least as long as given and at most half longer."""
    return delay_s * random.uniform(1.0, 1.5)  # noqa: S311  # spreads retries, no secret
