"""A shard that makes the engine compute for minutes, or crash: other libraries are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.catalog.__main__ import main
from imagesearch_services.catalog.edge import progress
from imagesearch_services.catalog.edge.files import copy_folder, write_generation
from imagesearch_services.catalog.edge.storage import EdgeStorage
from imagesearch_services.catalog.inspection import shards
from imagesearch_services.catalog.model import VectorSpace
from imagesearch_services.common.errors import Reason, ServiceError
from tests.contract.catalog.support import (
    SPACE,
    make_entry,
    refused,
    running_catalog,
    settings_for,
)
from tests.integration.catalog.edge_support import (
    collections_folder,
    edge_catalog,
    edge_settings,
    engine_pid,
    pending_methods,
)
from tests.waiting import until

LIBRARIES = ("first", "second", "whole")

COMMAND_S = 0.7
"""Processor time of a command in these tests, in seconds; honest ones use a tenth of it."""


@pytest.fixture(autouse=True)
def _low_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "COMMAND_S", COMMAND_S)
    monkeypatch.setattr(progress, "POLL_S", 0.1)
    monkeypatch.setattr(shards, "READ_S", COMMAND_S)


async def store(folder: Path) -> list[Path]:
    """Fill three libraries; return the folders of their collections."""
    async with running_catalog(settings_for(folder)) as catalog:
        created = [await catalog.make_library(library_id) for library_id in LIBRARIES]
        for library_id in LIBRARIES:
            await catalog.store(library_id, make_entry("a"))
    return [collections_folder(folder) / each.uid for each in created]


def make_endless(generation: Path) -> None:
    """Change a byte of a length in an index, so that the engine reads 2^40 flags to open it."""
    status = next(generation.glob("segments/*/payload_index/*-null/has_values/status.dat"))
    content = bytearray(status.read_bytes())
    assert int.from_bytes(content[:8], "little") == 1
    content[4] ^= 0xFF
    status.write_bytes(content)


async def test_collections_that_never_open_are_refused_and_others_are_served(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second, _ = await store(tmp_path)
    make_endless(first / "0")
    # A crash left an unused generation, so the start opens the one in use.
    copy_folder(second / "0", second / "1")
    write_generation(second, 1)
    make_endless(second / "1")
    capfd.readouterr()
    status = await asyncio.to_thread(main, ["check", "--data-dir", str(tmp_path), "--json"])
    report = json.loads(capfd.readouterr().out)
    assert status == 1
    found = {each["library"]: each for each in report["libraries"]}
    assert [found[each]["state"] for each in LIBRARIES] == ["damaged", "repairable", "ok"]
    assert "does not end" in found["first"]["problems"][0]
    async with edge_catalog(tmp_path) as (catalog, storage):
        assert (second / "0").is_dir()
        pids = set()
        for _ in range(2):
            for library_id in ("first", "second"):
                with refused(Reason.LIBRARY_DAMAGED) as errors:
                    await catalog.get(library_id, "a")
                assert errors[0].metadata == {"library": f"libraries/{library_id}"}
            assert await catalog.find("whole") == {"a"}
            listed = (await catalog.stub.ListLibraries(pb.ListLibrariesRequest())).libraries
            assert [each.entry_count for each in listed] == [0, 0, 1]
            pids.add(engine_pid(storage))
        assert len(pids) == 1  # the collections are not opened again
        for library_id in ("first", "second"):
            await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id=library_id))
        await catalog.make_library("first")
        await catalog.store("first", make_entry("b"))
    lines = [each for each in capfd.readouterr().out.splitlines() if "collection_marked" in each]
    assert [first.name in lines[1], second.name in lines[0], len(lines)] == [True, True, 2]


BROKEN, WHOLE = "b" * 32, "c" * 32


@contextlib.asynccontextmanager
async def two_collections(folder: Path) -> AsyncIterator[EdgeStorage]:
    storage = EdgeStorage(edge_settings(folder))
    await storage.start()
    try:
        for name in (BROKEN, WHOLE):
            await storage.create_collection(name, [VectorSpace(SPACE, 16)], {})
        yield storage
    finally:
        await storage.close()


async def crash(storage: EdgeStorage, sent: signal.Signals) -> Reason:
    """End the engine by a signal during a command; return the reason of the command's error."""
    await storage.check()
    pid = engine_pid(storage)
    os.kill(pid, signal.SIGSTOP)
    call = asyncio.create_task(storage.count(BROKEN, None))
    await until(lambda: pending_methods(storage) == ["count"])
    os.kill(pid, sent)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value.reason


async def test_a_collection_on_which_the_engine_crashes_twice_is_refused(tmp_path: Path) -> None:
    async with two_collections(tmp_path) as storage:
        assert await crash(storage, signal.SIGBUS) is Reason.STORAGE_UNAVAILABLE
        assert await storage.count(BROKEN, None) == 0
        assert await crash(storage, signal.SIGBUS) is Reason.LIBRARY_DAMAGED
        with pytest.raises(ServiceError, match="damaged"):
            await storage.count(BROKEN, None)
        assert await storage.count(WHOLE, None) == 0


async def test_kills_between_commands_that_succeed_do_not_mark_a_collection(
    tmp_path: Path,
) -> None:
    async with two_collections(tmp_path) as storage:
        for _ in range(3):
            assert await crash(storage, signal.SIGKILL) is Reason.STORAGE_UNAVAILABLE
            assert await storage.count(BROKEN, None) == 0
        assert await crash(storage, signal.SIGKILL) is Reason.STORAGE_UNAVAILABLE
        assert await crash(storage, signal.SIGKILL) is Reason.LIBRARY_DAMAGED
