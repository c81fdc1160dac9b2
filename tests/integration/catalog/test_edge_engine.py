"""The process of the embedded engine: crash, hang, shutdown, lock, full disk."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.catalog.edge import page_cache
from imagesearch_services.catalog.edge.engine import Engine
from imagesearch_services.catalog.edge.protocol import Failure
from imagesearch_services.catalog.edge.storage import EdgeStorage
from imagesearch_services.catalog.model import VectorSpace
from imagesearch_services.catalog.storage import FolderLockedError, Point
from imagesearch_services.common.errors import Reason, ServiceError
from tests.contract.catalog.support import (
    SPACE,
    make_entry,
    refused,
    running_catalog,
    settings_for,
    vector_at,
    where,
)
from tests.integration.catalog.edge_support import (
    add_random_entries,
    collections_folder,
    edge_catalog,
    edge_settings,
    engine_pid,
    pending_methods,
)
from tests.waiting import until


async def test_a_second_catalog_cannot_open_a_data_folder_in_use(tmp_path: Path) -> None:
    second = EdgeStorage(replace(edge_settings(tmp_path), lock_wait_s=0.1))
    async with running_catalog(settings_for(tmp_path)) as catalog:
        with pytest.raises(FolderLockedError, match="in use by another Catalog"):
            async with running_catalog(settings_for(tmp_path), second):
                pass
        await catalog.make_library("shop")


async def test_a_crashed_engine_is_restarted(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path) as (catalog, storage):
        await catalog.make_library("shop")
        await catalog.store("shop", make_entry("a"))
        os.kill(engine_pid(storage), signal.SIGSTOP)
        waiting = asyncio.create_task(catalog.find("shop"))
        await until(lambda: "count" in pending_methods(storage))
        os.kill(engine_pid(storage), signal.SIGKILL)
        with refused(Reason.STORAGE_UNAVAILABLE):
            await waiting
        assert (await catalog.library("shop")).entry_count == 1
        await catalog.store("shop", make_entry("b"))
        assert await catalog.find("shop") == {"a", "b"}


async def test_a_health_check_restarts_a_crashed_engine(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path) as (catalog, storage):
        await storage.check()
        os.kill(engine_pid(storage), signal.SIGKILL)
        await until(lambda: storage._engine is not None and not storage._engine.alive)
        # The check itself restarts the engine: no other call is made.
        await storage.check()
        await catalog.make_library("shop")
        assert await catalog.nearest("shop", vector_at(0)) == []


async def test_a_health_check_reports_a_hanging_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with edge_catalog(tmp_path) as (catalog, storage):
        os.kill(engine_pid(storage), signal.SIGSTOP)
        call = asyncio.create_task(storage.survey())
        await until(lambda: "survey" in pending_methods(storage))
        # A recently sent command may still be running.
        await storage.check()
        with monkeypatch.context() as patch:
            patch.setattr("imagesearch_services.catalog.edge.storage.HANG_S", 0.0)
            with pytest.raises(ServiceError, match="the storage engine has not answered for"):
                await storage.check()
        os.kill(engine_pid(storage), signal.SIGCONT)
        await call
        await storage.check()
        await catalog.make_library("shop")


async def test_an_engine_that_does_not_shut_down_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagesearch_services.catalog.edge.process.CLOSE_TIMEOUT_S", 0.2)
    async with edge_catalog(tmp_path) as (catalog, storage):
        await catalog.make_library("shop")
        os.kill(engine_pid(storage), signal.SIGSTOP)
    async with edge_catalog(tmp_path) as (catalog, _):
        assert (await catalog.library("shop")).entry_count == 0


async def test_a_write_completes_after_the_deadline_of_its_caller(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path) as (catalog, storage):
        await catalog.make_library("shop")
        os.kill(engine_pid(storage), signal.SIGSTOP)
        call = catalog.stub.PutEntries(
            pb.PutEntriesRequest(
                library_id="shop", entries=[make_entry("a", tags={"n": 1})], request_ids=["r"]
            ),
            timeout=0.3,
        )
        with pytest.raises(Exception, match="DEADLINE_EXCEEDED"):
            await call
        os.kill(engine_pid(storage), signal.SIGCONT)
        await catalog.store("shop", make_entry("a", tags={"n": 1}), request_ids=["r"])
        assert await catalog.find("shop", where("tags.n", "=", 1)) == {"a"}


async def test_other_calls_are_answered_during_a_long_search(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path, INDEXING_THRESHOLD="0") as (catalog, _):
        await catalog.make_library("shop", spaces=[{"name": SPACE, "dimensions": 64}])
        await catalog.make_library("other")
        vectors = await add_random_entries(catalog, "shop", 10_000)
        search = asyncio.create_task(catalog.query("shop", *vectors[:100], limit=1000))
        answer_count = 0
        while not search.done():
            await catalog.library("other")
            answer_count += 1
        assert answer_count > 1
        assert len(await search) == 100


async def test_an_engine_error_does_not_reveal_internals_to_the_caller(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path) as (catalog, _):
        created = await catalog.make_library("shop")
        await catalog.store("shop", make_entry("a"))
    # A shard with an invalid configuration cannot be opened.
    config = collections_folder(tmp_path) / created.uid / "0" / "edge_config.json"
    config.write_text("broken")
    async with edge_catalog(tmp_path) as (catalog, _):
        with refused(Reason.LIBRARY_DAMAGED) as errors:
            await catalog.get("shop", "a")
        assert "edge_config.json" not in errors[0].message
        await catalog.make_library("another")


async def test_a_full_disk_refuses_writes_but_not_reads_and_deletes(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path) as (catalog, _):
        await catalog.make_library("shop")
        await catalog.store("shop", make_entry("a"))
    # Require more free space than any disk has.
    async with edge_catalog(tmp_path, MIN_FREE_MIB=str(1 << 40)) as (catalog, _):
        with refused(Reason.STORAGE_FULL) as errors:
            await catalog.put("shop", make_entry("b"))
        assert errors[0].message == "the disk of the storage engine is full; free space on it"
        with refused(Reason.STORAGE_FULL):
            await catalog.make_library("another")
        assert await catalog.nearest("shop", vector_at(0)) == ["a"]
        assert await catalog.delete("shop", "a") == 1
        await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id="shop"))


def test_the_least_recently_used_shards_are_closed_and_keep_their_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagesearch_services.catalog.edge.data_folder.MAX_OPEN", 2)
    engine = Engine(edge_settings(tmp_path))

    def run(command: str, *arguments: object) -> Any:
        result = engine.execute(command, arguments)
        assert not isinstance(result, Failure)
        return result

    try:
        point = Point(bytes(16), {SPACE: vector_at(0)}, {"image_id": "a"})
        for name in "abc":
            run("create_collection", name, [VectorSpace(SPACE, 16)], {})
            run("upsert", name, [point])
        assert set(engine._folder._open) == {"b", "c"}
        assert run("stats", "b").point_count == 1
        assert run("stats", "a").point_count == 1
        assert set(engine._folder._open) == {"b", "c"}  # "stats" does not reopen a closed shard
        run("delete", "a", [bytes(16)])
        assert set(engine._folder._open) == {"b", "a"}
        assert run("stats", "a").point_count == 0
        run("drop_collection", "b")
        run("create_collection", "b", [VectorSpace(SPACE, 16)], {})
        assert run("stats", "b").point_count == 0
        assert run("stats", "c").point_count == 1
    finally:
        engine.close()


@pytest.mark.parametrize("available_bytes", [0, 1 << 40])
def test_reading_ahead_ignores_unreadable_payload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available_bytes: int
) -> None:
    monkeypatch.setattr(page_cache, "_available_bytes", lambda: available_bytes)
    pages = tmp_path / "segments" / "one" / "payload_storage"
    pages.mkdir(parents=True)
    (pages / "page_0.dat").write_bytes(bytes(3 << 20))
    (pages / "page_1.dat").symlink_to(tmp_path / "gone")
    page_cache.read_payload_ahead(tmp_path)
    page_cache.read_payload_ahead(tmp_path / "gone")


async def test_calls_fail_at_once_while_the_engine_is_stopped_and_work_afterwards(
    tmp_path: Path,
) -> None:
    async with edge_catalog(tmp_path) as (catalog, storage):
        await catalog.make_library("shop")
        pid = engine_pid(storage)
        os.kill(pid, signal.SIGSTOP)
        stuck = asyncio.create_task(catalog.put("shop", make_entry("a"), request_ids=["r"]))
        with refused(Reason.STORAGE_UNAVAILABLE):
            await stuck
        with pytest.raises(ServiceError, match="no progress"):
            await storage.check()
        with refused(Reason.STORAGE_UNAVAILABLE):
            await catalog.find("shop")
        assert pending_methods(storage) == ["retrieve"]
        os.kill(pid, signal.SIGCONT)
        await until(lambda: not engine_stuck(storage))
        await storage.check()
        await catalog.store("shop", make_entry("a"), request_ids=["r"])
        assert await catalog.find("shop") == {"a"}
        assert engine_pid(storage) == pid


async def test_an_engine_that_stays_stopped_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagesearch_services.catalog.edge.progress.STOPPED_S", 0.1)
    monkeypatch.setattr("imagesearch_services.catalog.edge.progress.KILL_S", 0.2)
    async with edge_catalog(tmp_path) as (catalog, storage):
        await catalog.make_library("shop")
        await catalog.store("shop", make_entry("a"))
        pid = engine_pid(storage)
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: storage._engine is not None and not storage._engine.alive)
        await storage.check()
        assert engine_pid(storage) != pid
        assert await catalog.find("shop") == {"a"}


def engine_stuck(storage: EdgeStorage) -> bool:
    assert storage._engine is not None
    return storage._engine.stuck
