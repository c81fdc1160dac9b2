"""Limit of work in progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imagesearch_services.common.errors import Reason, ServiceError


class Admission:
    """Admits work up to a budget and rejects more with OVERLOADED."""

    def __init__(
        self,
        budget: int,
        *,
        refusal: str = "too many pictures are in progress; retry later",
        retry_after_s: float = 0.5,
    ) -> None:
        """Set the budget.

        Args:
            budget: maximum total size in progress, in the unit of the sizes (bytes of requests).
            refusal: message of the error.
            retry_after_s: recommended delay before a retry, in seconds.
        """
        self._budget = budget
        self._in_flight = 0
        self._refusal = refusal
        self._retry_after_s = retry_after_s

    @contextmanager
    def admit(self, size: int) -> Iterator[None]:
        """Reserve a part of the budget for the duration of a `with` block.

        Work that is larger than the whole budget is admitted if no other work is in progress.

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
