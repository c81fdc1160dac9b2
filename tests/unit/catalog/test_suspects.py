"""When a collection counts as the cause of the engine's end."""

from __future__ import annotations

import pytest

from imagesearch_services.catalog.edge.suspects import (
    CRASH_WINDOW_S,
    Cause,
    EngineEnd,
    Suspects,
)
from imagesearch_services.catalog.payloads import METADATA
from imagesearch_services.catalog.storage import CollectionDamagedError

NAME = "0" * 32


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def end(cause: Cause, name: str = NAME) -> EngineEnd:
    return EngineEnd("stats", name, cause, None)


def test_an_overrun_marks_a_collection_which_can_still_be_deleted() -> None:
    suspects = Suspects()
    suspects.check("stats", NAME)
    suspects.record(end(Cause.OVERRUN))
    with pytest.raises(CollectionDamagedError, match="processor time"):
        suspects.check("stats", NAME)
    suspects.check("drop_collection", NAME)
    suspects.check("stats", "another")
    suspects.forget(NAME)
    suspects.check("stats", NAME)


def test_two_crashes_count_only_within_some_minutes() -> None:
    clock = Clock()
    suspects = Suspects(clock)
    suspects.record(end(Cause.CRASH))
    clock.now_s = CRASH_WINDOW_S + 1
    suspects.record(end(Cause.CRASH))
    assert not suspects.is_marked(NAME)
    suspects.succeeded(NAME)  # another command may read other bytes
    suspects.record(end(Cause.CRASH))
    assert suspects.is_marked(NAME)


def test_a_kill_from_outside_counts_until_a_command_succeeds() -> None:
    suspects = Suspects()
    suspects.record(end(Cause.KILLED))
    suspects.succeeded(NAME)
    suspects.record(end(Cause.KILLED))
    assert not suspects.is_marked(NAME)
    suspects.record(end(Cause.KILLED))
    assert suspects.is_marked(NAME)


def test_the_metadata_is_never_marked() -> None:
    suspects = Suspects()
    suspects.record(end(Cause.OVERRUN, METADATA))
    suspects.check("stats", METADATA)
