"""Calls and bytes in progress, in total and by caller."""

from __future__ import annotations

import pytest

from imagesearch_services.common.call_budget import CallBudget, Reservation
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.server_limits import ServerLimits


def budget() -> CallBudget:
    return CallBudget(ServerLimits(max_open_calls=4, max_buffered_bytes=100, caller_share=0.5))


def is_refused(reservation: Reservation, size_bytes: int) -> bool:
    try:
        reservation.resize(size_bytes)
    except ServiceError as error:
        return error.reason is Reason.OVERLOADED and bool(error.retry_after_s)
    return False


def test_a_caller_gets_its_share_of_the_calls_until_they_end() -> None:
    limited = budget()
    calls = [limited.admit("one") for _ in range(2)]
    with pytest.raises(ServiceError):
        limited.admit("one")
    others = [limited.admit("two") for _ in range(2)]
    with pytest.raises(ServiceError):
        limited.admit("three")
    for call in [*calls, *others]:
        call.close()
        call.close()
    assert limited.admit("one")


def test_a_caller_gets_its_share_of_the_bytes_until_they_are_sent() -> None:
    limited = budget()
    first, second, other = limited.admit("one"), limited.admit("one"), limited.admit("two")
    assert not is_refused(first, 40)
    assert is_refused(second, 20)
    assert not is_refused(other, 50)
    first.resize(10)
    assert not is_refused(second, 20)
    first.close()
    second.close()
    assert not limited.excess_bytes("one")


def test_a_message_over_the_share_is_admitted_alone() -> None:
    limited = budget()
    large, small = limited.admit("one"), limited.admit("one")
    assert not is_refused(large, 80)
    assert is_refused(small, 1)
    large.close()
    assert not is_refused(small, 1)


def test_incomplete_requests_count() -> None:
    limited = budget()
    call = limited.admit("one")
    assert not is_refused(call, 10)
    limited.set_incoming({"one": 45})
    assert limited.excess_bytes("one") == 5
    assert is_refused(call, 11)
    assert not limited.excess_bytes("two")
