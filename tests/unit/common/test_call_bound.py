"""The bound of calls in progress."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from imagesearch_services.common.call_bound import CallBound
from imagesearch_services.common.errors import Reason, ServiceError


def test_calls_beyond_the_bound_are_refused_until_another_ends() -> None:
    bound = CallBound(3)
    with ExitStack() as calls:
        for _ in range(3):
            calls.enter_context(bound.admit("", {}, ""))
        with pytest.raises(ServiceError) as caught, bound.admit("", {}, ""):
            pass
        assert caught.value.reason is Reason.OVERLOADED
        assert caught.value.retry_after_s
    for _ in range(10):
        with pytest.raises(KeyError), bound.admit("", {}, ""):
            raise KeyError
