"""Turns of scans whose callers read, or do not."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.gateway.duplicates.turns import Turns


def refused(turns: Turns) -> bool:
    try:
        with turns.take():
            return False
    except ServiceError as error:
        return error.reason is Reason.OVERLOADED


async def test_a_scan_without_a_free_turn_is_refused_until_another_ends() -> None:
    turns = Turns(1)
    with turns.take():
        assert refused(turns)
    assert not refused(turns)


async def test_a_scan_whose_caller_does_not_read_gives_up_its_turn() -> None:
    turns = Turns(1)
    with turns.take() as turn:
        turn.pause()
        assert refused(turns)
        turn.pause_now()
        assert not refused(turns)


async def test_a_scan_that_is_read_again_waits_for_its_turn() -> None:
    turns = Turns(1)
    with turns.take() as first:
        first.pause_now()
        with turns.take():
            resumed = asyncio.create_task(first.resume())
            await asyncio.sleep(0)
            assert not resumed.done()
            assert refused(turns)
        await resumed
        assert refused(turns)
    assert not refused(turns)


async def test_a_scan_that_ends_while_it_waits_leaves_its_turn_to_others() -> None:
    turns = Turns(1)
    with turns.take() as first:
        first.pause_now()
        with turns.take():
            waiting = asyncio.create_task(first.resume())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
    assert not refused(turns)


async def test_stalled_scans_are_bounded() -> None:
    turns = Turns(1)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(turns.take()).pause_now()
        assert refused(turns)
    assert not refused(turns)
