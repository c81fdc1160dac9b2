"""The adaptive limit of calls: it follows the capacity of the services, and shares it."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
from collections import Counter
from contextlib import AbstractContextManager, ExitStack

import pytest

from imagesearch.gateway.v1 import image_search_service_pb2
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.gateway import app
from imagesearch_services.gateway.call_limit import CallLimit, CallLimitSettings
from imagesearch_services.gateway.callers import CallLimits, caller_of


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def new_limit(clock: Clock | None = None, *, initial: int = 8, minimum: int = 2) -> CallLimit:
    settings = CallLimitSettings(initial=initial, minimum=minimum, maximum=64, target_wait_s=0.25)
    return CallLimit("calls", settings, now_s=clock or Clock(), chance=lambda: 0.5)


def refusal(limit: CallLimit, caller: str) -> ServiceError:
    with pytest.raises(ServiceError) as caught, limit.admit(caller):
        pass
    return caught.value


def admit(calls: ExitStack, limit: CallLimit, caller: str, count: int) -> int:
    """Start up to `count` calls; return the number that was admitted."""
    for started in range(count):
        try:
            calls.enter_context(limit.admit(caller))
        except ServiceError:
            return started
    return count


def test_calls_beyond_the_limit_are_refused_with_a_delay_until_others_end() -> None:
    limit = new_limit()
    with ExitStack() as calls:
        assert admit(calls, limit, "one", 100) == 8
        error = refusal(limit, "one")
        assert error.reason is Reason.OVERLOADED
        assert error.retry_after_s
    with limit.admit("one"):
        pass


def test_a_failed_call_frees_its_place() -> None:
    limit = new_limit()
    for _ in range(100):
        with pytest.raises(KeyError), limit.admit("one"):
            raise KeyError


def test_a_flood_leaves_places_for_another_caller() -> None:
    limit = new_limit()
    with ExitStack() as flood, ExitStack() as calls:
        assert admit(flood, limit, "flood", 100) == 8
        assert admit(calls, limit, "other", 100) == 2, "a caller below its share may exceed it"
    with ExitStack() as flood, ExitStack() as calls:
        assert admit(flood, limit, "flood", 100) == 7, "one place is left for the other"
        assert admit(calls, limit, "other", 1) == 1


def test_a_caller_under_its_share_wins_the_places_that_become_free() -> None:
    limit = new_limit()
    held: Counter[str] = Counter()
    flood: list[AbstractContextManager[None]] = []
    with ExitStack() as calls:
        for _ in range(50):
            flood.append(limit.admit("flood"))
            try:
                flood[-1].__enter__()
            except ServiceError:
                flood.pop()
            held["other"] += admit(calls, limit, "other", 1)
            if len(flood) > 4:
                flood.pop(0).__exit__(None, None, None)
        assert held["other"] >= 4, "half of the limit"
        for call in flood:
            call.__exit__(None, None, None)


def test_a_caller_that_is_gone_leaves_the_whole_limit_to_the_others() -> None:
    clock = Clock()
    limit = new_limit(clock)
    with limit.admit("gone"):
        pass
    clock.now_s = 60.0
    with ExitStack() as calls:
        assert admit(calls, limit, "one", 100) == 8


def test_many_callers_cannot_exceed_the_limit_by_more_than_a_quarter() -> None:
    limit = new_limit()
    with ExitStack() as calls:
        admitted = sum(admit(calls, limit, f"caller-{number}", 1) for number in range(1000))
        assert admitted == 10


def test_an_unused_limit_does_not_grow() -> None:
    limit = new_limit()
    for _ in range(1000):
        with limit.admit("one"):
            pass
    assert limit.limit == 8


def test_refusals_of_one_round_of_calls_shrink_the_limit_once() -> None:
    clock = Clock()
    limit = new_limit(clock, initial=20)
    with limit.admit("one"):
        clock.now_s += 5.0
    with ExitStack() as calls:
        admit(calls, limit, "one", 20)
        for _ in range(5):
            limit.back_off()
        assert limit.limit == 18


def test_long_waits_shrink_the_limit_and_stop_its_growth() -> None:
    clock = Clock()
    limit = new_limit(clock, initial=20)
    with ExitStack() as calls:
        admit(calls, limit, "one", 20)
        for _ in range(20):
            limit.waited(0.2)
        assert limit.limit == 20
        for _ in range(20):
            limit.waited(3.0)
            clock.now_s += 0.01
        assert limit.limit < 15
    shrunk = limit.limit
    with ExitStack() as calls:
        admit(calls, limit, "one", 100)
    assert limit.limit == shrunk


def test_the_limit_never_falls_below_its_minimum() -> None:
    clock = Clock()
    limit = new_limit(clock)
    for _ in range(100):
        clock.now_s += 1.0
        with pytest.raises(ServiceError), limit.admit("one"):
            raise ServiceError(Reason.OVERLOADED, "full")
    assert limit.limit == 2


@pytest.mark.parametrize("capacity", [6, 12, 60])
def test_the_limit_finds_what_the_services_hold_and_seldom_exceeds_it(capacity: int) -> None:
    """Services refuse calls beyond `capacity`; four times the calls that they answer arrive."""
    clock, chance = Clock(), random.Random(1)  # noqa: S311  # repeatable, not secret
    limit = new_limit(clock, initial=16)
    running: list[tuple[float, int, AbstractContextManager[None]]] = []
    counts: Counter[str] = Counter()
    for number in itertools.count():
        clock.now_s += chance.expovariate(4 * capacity / 0.5)
        if clock.now_s > 100:
            break
        while running and running[0][0] <= clock.now_s:
            heapq.heappop(running)[2].__exit__(None, None, None)
        call = limit.admit("one")
        try:
            call.__enter__()
        except ServiceError:
            counts["refused at once"] += 1
            continue
        if len(running) < capacity:
            counts["answered"] += 1
            ends_s = clock.now_s + chance.uniform(0.25, 0.75)
            heapq.heappush(running, (ends_s, number, call))
            continue
        counts["refused late"] += 1
        with contextlib.suppress(ServiceError):
            call.__exit__(ServiceError, ServiceError(Reason.OVERLOADED, "full"), None)
    possible = 100 * capacity / 0.5
    assert counts["answered"] > 0.8 * possible
    assert counts["refused late"] < 0.05 * counts.total()


def test_the_delay_grows_with_the_calls_that_will_come_back() -> None:
    clock = Clock()
    limit = new_limit(clock)
    for _ in range(100):
        with limit.admit("one"):
            clock.now_s += 0.5
    with ExitStack() as calls:
        admit(calls, limit, "one", 8)
        first = refusal(limit, "one").retry_after_s
        for _ in range(50):
            last = refusal(limit, "one").retry_after_s
    assert first is not None
    assert last is not None
    assert 0.5 <= first < last <= 30


def test_only_methods_with_a_limit_are_limited_and_tokens_tell_callers_apart() -> None:
    admission = CallLimits({"SearchImages": new_limit(initial=1, minimum=1)})
    one, other = {"authorization": "Bearer one"}, {"authorization": "Bearer other"}
    with admission.admit("/service/SearchImages", one, "ipv4:10.0.0.1:1"):
        with admission.admit("/service/GetImage", one, "ipv4:10.0.0.1:1"):
            pass
        with (
            pytest.raises(ServiceError),
            admission.admit("/service/SearchImages", one, "ipv4:10.0.0.2:2"),
        ):
            pass
        with pytest.raises(ServiceError):
            admission.check("/service/SearchImages", one, "ipv4:10.0.0.2:2")
        admission.check("/service/SearchImages", other, "ipv4:10.0.0.1:1")
        with admission.admit("/service/SearchImages", other, "ipv4:10.0.0.1:1"):
            pass


def test_callers_without_a_token_are_told_apart_by_their_host() -> None:
    assert caller_of({}, "ipv4:10.0.0.1:4711") == caller_of({}, "ipv4:10.0.0.1:4712")
    assert caller_of({}, "ipv4:10.0.0.1:4711") != caller_of({}, "ipv4:10.0.0.2:4711")


def test_every_method_has_a_limit() -> None:
    service = image_search_service_pb2.DESCRIPTOR.services_by_name["ImageSearchService"]
    limited = {*app.SINGLE_METHODS, *app.BATCH_METHODS, *app.OTHER_METHODS}
    assert {method.name for method in service.methods} == limited | {"ListImages", "FindDuplicates"}
