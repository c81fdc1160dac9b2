"""How much may be in flight, and who may call."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from imagesearch.gateway.v1 import search_pb2
from imagesearch.type.v1 import category_pb2, library_type_pb2
from imagesearch_services.common.concurrency import both, in_order
from imagesearch_services.common.env import Env, SettingsError
from imagesearch_services.common.errors import FieldViolation, Reason, ServiceError, field_error
from imagesearch_services.common.types import Category, LibraryType
from imagesearch_services.gateway.access import require_token
from imagesearch_services.gateway.admission import Admission
from imagesearch_services.gateway.clients.peers import with_public_fields
from imagesearch_services.gateway.model import Relation
from imagesearch_services.gateway.settings import PREFIX, Settings


def test_bytes_beyond_the_budget_are_told_to_retry_until_there_is_room() -> None:
    admission = Admission(100)
    with admission.admit(60):
        with admission.admit(40):
            pass
        with pytest.raises(ServiceError) as caught, admission.admit(41):
            pass
        assert caught.value.reason is Reason.OVERLOADED
        assert caught.value.retry_after_s
    with admission.admit(100):
        pass


def test_work_larger_than_the_budget_goes_alone() -> None:
    admission = Admission(100)
    with (
        admission.admit(1000),
        pytest.raises(ServiceError),
        admission.admit(1),
    ):
        pass


def test_a_failure_gives_its_budget_back() -> None:
    admission = Admission(100)
    for _ in range(3):
        with pytest.raises(KeyError), admission.admit(100):
            raise KeyError


def test_without_tokens_everybody_may_call() -> None:
    assert require_token([]) is None


@pytest.mark.parametrize("header", ["Bearer two", "bearer two", "BEARER  two "])
def test_a_known_token_lets_in(header: str) -> None:
    authorize = require_token(["one", "two"])
    assert authorize is not None
    authorize("/any", {"authorization": header})


@pytest.mark.parametrize("header", [None, "", "two", "Bearer", "Bearer ", "Bearer tw", "Basic two"])
def test_no_token_or_a_wrong_one_is_refused(header: str | None) -> None:
    authorize = require_token(["one", "two"])
    assert authorize is not None
    metadata = {} if header is None else {"authorization": header}
    with pytest.raises(ServiceError) as caught:
        authorize("/any", metadata)
    assert caught.value.reason is Reason.UNAUTHENTICATED


def test_our_enums_are_those_of_the_contract() -> None:
    assert {f"CATEGORY_{one.name}": one.value for one in Category} == {
        name: number for name, number in category_pb2.Category.items() if number
    }
    assert {f"LIBRARY_TYPE_{one.name}": one.value for one in LibraryType} == {
        name: number for name, number in library_type_pb2.LibraryType.items() if number
    }
    for relation in Relation:
        assert int(search_pb2.Relation.Value(f"RELATION_{relation.name}")) == relation.value


@pytest.mark.parametrize("field", ["items[3].regions[0]", "regions[0]", "region"])
def test_fields_of_inner_requests_are_named_as_the_caller_knows_them(field: str) -> None:
    error = with_public_fields(field_error(field, "is empty", reason=Reason.REGION_INVALID))
    assert error.fields == (FieldViolation("region", "is empty"),)
    assert error.message == "region: is empty"
    assert error.metadata == {"field": "region"}


def test_settings_have_defaults_and_refuse_what_they_do_not_know() -> None:
    settings = Settings.from_env(Env(PREFIX, {f"{PREFIX}TOKENS": "a, b"}))
    assert settings.tokens == {"a", "b"}
    assert settings.search.default_max_false_positive_rate == 0.01
    with pytest.raises(SettingsError, match="TOKEN"):
        Settings.from_env(Env(PREFIX, {f"{PREFIX}TOKEN": "a"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REGION_RATE_SHARE", "1"),
        ("REGION_RATE_SHARE", "0"),
        ("MAX_PROPOSED_REGIONS", "65"),
        ("CHUNK_PICTURES", "0"),
        ("CHUNKS_IN_FLIGHT", "-1"),
        ("DEFAULT_MAX_FALSE_POSITIVE_RATE", "nan"),
    ],
)
def test_a_number_out_of_its_range_stops_the_start(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_env(Env(PREFIX, {PREFIX + name: value}))


async def test_of_two_things_at_once_the_first_failure_ends_both() -> None:
    ended = asyncio.Event()

    async def wait_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail() -> None:
        raise KeyError("this one")

    with pytest.raises(KeyError, match="this one"):
        await both(wait_for_ever(), fail())
    assert ended.is_set()


async def test_work_runs_ahead_only_so_far_and_results_keep_their_order() -> None:
    running = 0
    most = 0
    turn = [asyncio.Event() for _ in range(6)]
    turn[1].set()

    async def work(item: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        # Each waits for the one after it, within its pair: they end in the wrong order.
        if item % 2 == 0:
            await turn[item + 1].wait()
        turn[item].set()
        running -= 1
        return item

    async with aclosing(in_order(work, range(6), ahead=2)) as results:
        assert [result async for result in results] == list(range(6))
    assert most == 2


async def test_work_that_nobody_waits_for_any_more_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def work(item: int) -> int:
        if item == 0:
            return item
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return item

    async with aclosing(in_order(work, range(3), ahead=2)) as results:
        async for _ in results:
            # Let the second one begin, so that there is something to cancel.
            await asyncio.sleep(0)
            break
    assert cancelled.is_set()
