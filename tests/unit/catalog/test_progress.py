"""When an engine process counts as stuck."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from imagesearch_services.catalog.edge.progress import (
    KILL_S,
    POLL_S,
    STOPPED_S,
    STUCK_S,
    TICKS_PER_S,
    Progress,
    Reading,
    read_process,
)
from tests.waiting import until


class Process:
    """A process with a given state, whose processor time grows while it runs."""

    def __init__(self, state: str) -> None:
        self.state = state
        self.ticks = 0

    def read(self, pid: int) -> Reading:
        del pid
        self.ticks += self.state == "R"
        return Reading(self.state, self.ticks)


def watched(process: Process, seconds: float, *, waiting: bool = True) -> Progress:
    progress = Progress(1, process.read)
    watch(progress, seconds, waiting=waiting)
    return progress


def watch(progress: Progress, seconds: float, *, waiting: bool = True, answered: int = 0) -> None:
    for _ in range(round(seconds / POLL_S) + 1):
        progress.update(waiting=waiting, answered=answered, elapsed_s=POLL_S)


@pytest.mark.parametrize("state", "SDT")
def test_a_process_without_progress_is_stuck_and_then_hopeless(state: str) -> None:
    limit_s = STOPPED_S if state == "T" else STUCK_S
    assert not watched(Process(state), limit_s - 2 * POLL_S).stuck
    progress = watched(Process(state), limit_s)
    assert progress.stuck
    assert not progress.hopeless
    watch(progress, KILL_S)
    assert progress.hopeless


def test_a_busy_process_is_never_stuck() -> None:
    assert not watched(Process("R"), 10 * KILL_S).stuck


def test_a_process_without_commands_sleeps_but_must_not_be_stopped() -> None:
    assert not watched(Process("S"), 10 * KILL_S, waiting=False).stuck
    assert watched(Process("T"), STUCK_S, waiting=False).stuck


def test_an_answer_is_progress() -> None:
    progress = watched(Process("S"), KILL_S)
    watch(progress, 0, answered=1)
    assert not progress.stuck


def test_a_pause_of_the_watcher_is_no_hang() -> None:
    progress = Progress(1, Process("S").read)
    progress.update(waiting=True, answered=0, elapsed_s=3600.0)
    assert not progress.stuck


async def test_the_system_tells_running_and_stopped_processes_apart() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass")
    try:
        started = read_process(process.pid)
        assert started is not None
        await until(lambda: (now := read_process(process.pid)) and now.processor_ticks > started[1])
        os.kill(process.pid, signal.SIGSTOP)
        await until(lambda: (now := read_process(process.pid)) and now.state == "T")
    finally:
        process.kill()
        await process.wait()
    assert read_process(process.pid) is None


def test_the_processor_time_of_a_command_starts_with_it() -> None:
    process = Process("R")
    progress = watched(process, 5, waiting=False)
    assert progress.command_s == 0
    watch(progress, 10)
    after_s = progress.command_s
    assert after_s == pytest.approx(10 / POLL_S / TICKS_PER_S, abs=2 / TICKS_PER_S)
    watch(progress, 0, answered=1)
    assert progress.command_s == 0
