"""A fixed bound of the calls in progress, for a service behind others that limit theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imagesearch_services.common import metrics
from imagesearch_services.common.errors import Reason, ServiceError

WORK = "calls"
"""Name of the bounded calls in the metrics."""
RETRY_AFTER_S = 0.5


class CallBound:
    """Refuses calls while too many are in progress; for use in one event loop."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._in_progress = 0
        metrics.ADMISSION_LIMIT.labels(WORK).set(maximum)

    def check(self, _method: str, _metadata: dict[str, str], _peer: str) -> None:
        """Refuse a call before its request is read, if too many are in progress.

        Raises:
            ServiceError: OVERLOADED.
        """
        if self._in_progress >= self._maximum:
            metrics.ADMISSION.labels(WORK, "full").inc()
            raise ServiceError(
                Reason.OVERLOADED,
                "too many calls are in progress; retry later",
                retry_after_s=RETRY_AFTER_S,
            )

    @contextmanager
    def admit(self, method: str, metadata: dict[str, str], peer: str) -> Iterator[None]:
        """Count a call while it is in progress.

        Raises:
            ServiceError: OVERLOADED.
        """
        self.check(method, metadata, peer)
        metrics.ADMISSION.labels(WORK, "admitted").inc()
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def _change(self, calls: int) -> None:
        self._in_progress += calls
        metrics.ADMISSION_IN_PROGRESS.labels(WORK).set(self._in_progress)
