"""Limits the work in flight."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imagesearch_services.common.errors import (
    Reason,
    ServiceError,
)


class Admission:
    """Lets in as much work as the budget holds, and tells the rest to retry."""

    def __init__(
        self,
        budget: int,
        *,
        refusal: str = "too many pictures are being worked on",
        retry_after_s: float = 0.5,
    ) -> None:
        """Take a budget of bytes of pictures, or of whatever else is admitted."""
        self._budget = budget
        self._in_flight = 0
        self._refusal = refusal
        self._retry_after_s = retry_after_s

    @contextmanager
    def admit(self, size: int) -> Iterator[None]:
        """Hold a part of the budget.

        Work that is larger than the whole budget is let in when nothing else is there.

        Raises:
            ServiceError: OVERLOADED.
        """
        if self._in_flight and self._in_flight + size > self._budget:
            raise ServiceError(Reason.OVERLOADED, self._refusal, retry_after_s=self._retry_after_s)
        self._in_flight += size
        try:
            yield
        finally:
            self._in_flight -= size
