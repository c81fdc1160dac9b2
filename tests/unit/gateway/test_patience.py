"""Parts of a batch that a service refuses for lack of capacity are repeated."""

from __future__ import annotations

import pytest

from imagesearch_services.common.context import begin_call
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.gateway import patience
from imagesearch_services.gateway.patience import patiently


class Work:
    """Work that fails a number of times before it succeeds."""

    def __init__(self, failures: int, reason: Reason, retry_after_s: float = 0.001) -> None:
        self._failures = failures
        self._error = ServiceError(reason, "no", retry_after_s=retry_after_s)
        self.attempts = 0
        self.refusals = 0

    async def __call__(self) -> str:
        self.attempts += 1
        if self.attempts <= self._failures:
            raise self._error
        return "done"

    def refused(self) -> None:
        self.refusals += 1


async def test_refused_work_is_repeated_and_each_refusal_is_reported() -> None:
    work = Work(3, Reason.OVERLOADED)
    assert await patiently(work, work.refused) == "done"
    assert work.refusals == 3


async def test_attempts_are_bounded() -> None:
    work = Work(1000, Reason.OVERLOADED)
    with pytest.raises(ServiceError):
        await patiently(work, work.refused)
    assert work.attempts == patience.MAX_ATTEMPTS


async def test_other_errors_are_raised_at_once() -> None:
    work = Work(1, Reason.MODEL_SERVER_UNAVAILABLE)
    with pytest.raises(ServiceError):
        await patiently(work, work.refused)
    assert work.attempts == 1


async def test_work_is_not_repeated_after_the_deadline_of_the_call() -> None:
    begin_call("request", 0.5)
    work = Work(1, Reason.OVERLOADED, retry_after_s=60.0)
    with pytest.raises(ServiceError):
        await patiently(work, work.refused)
    assert work.attempts == 1
