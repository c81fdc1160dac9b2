"""The embedded engine: what survives, what is cleaned up, and what goes on meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.catalog.app import open_storage
from imagesearch_services.catalog.edge import page_cache
from imagesearch_services.catalog.edge.collection import CURRENT_FILE
from imagesearch_services.catalog.edge.data_folder import LOCK_FILE
from imagesearch_services.catalog.edge.engine import Engine
from imagesearch_services.catalog.edge.protocol import Failure
from imagesearch_services.catalog.edge.settings import EdgeSettings
from imagesearch_services.catalog.edge.storage import EdgeStorage
from imagesearch_services.catalog.model import VectorSpace
from imagesearch_services.catalog.storage import FolderLockedError, Point, storage_error
from imagesearch_services.common.errors import Reason
from tests.contract.catalog.support import (
    SPACE,
    Catalog,
    make_entry,
    random_units,
    refused,
    running_catalog,
    settings_for,
    turned,
    where,
)
from tests.waiting import until

ROOT = Path(__file__).parents[3]


def collections_of(folder: Path) -> Path:
    return folder / "catalog" / "libraries"


def engine_pid(storage: EdgeStorage) -> int:
    assert storage._engine is not None
    return storage._engine.pid


def edge_settings(folder: Path) -> EdgeSettings:
    storage = open_storage(settings_for(folder))
    assert isinstance(storage, EdgeStorage)
    return storage._settings


def start_importer(folder: Path, indexing_threshold: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.integration.catalog.importer",
            folder,
            f"{indexing_threshold}",
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("indexing_threshold", "acknowledged"), [(0, 500), (300, 1500)], ids=["plain", "while indexing"]
)
async def test_every_acknowledged_entry_survives_a_kill(
    tmp_path: Path, indexing_threshold: int, acknowledged: int
) -> None:
    importer = start_importer(tmp_path, indexing_threshold)
    assert importer.stdout is not None
    try:
        numbers = [
            int(await asyncio.to_thread(importer.stdout.readline)) for _ in range(acknowledged)
        ]
    finally:
        # The Catalog, its engine and its builder at once, in the middle of what they do.
        os.killpg(importer.pid, signal.SIGKILL)
    numbers += [int(line) for line in importer.stdout.read().split("\n")[:-1]]
    importer.wait()

    async with running_catalog(settings_for(tmp_path)) as catalog:
        library = await catalog.library("imported")
        assert library.entry_count >= len(numbers)
        for start in range(0, len(numbers), 500):
            some = numbers[start : start + 500]
            found = await catalog.get(
                "imported", *(f"image {number}" for number in some), include_vectors=True
            )
            assert [entry.image_id for entry in found] == [f"image {number}" for number in some]
            stored = np.frombuffer(b"".join(entry.vectors[0].values for entry in found), "<f4")
            sent = np.frombuffer(b"".join(random_units(1, seed=n)[0] for n in some), "<f4")
            np.testing.assert_allclose(stored, sent, atol=1e-6)
        last = numbers[-1]
        assert await catalog.find("imported", where("tags.n", "=", last)) == {f"image {last}"}
        assert await catalog.nearest("imported", random_units(1, seed=last)[0], limit=1) == [
            f"image {last}"
        ]


async def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    async with running_catalog(settings_for(tmp_path)) as catalog:
        created = await catalog.make_library("shop", display_name="Shop")
        (stored,) = await catalog.store("shop", make_entry("a", tags={"price": 1.5}))
        request = pb.DeleteEntriesRequest(
            library_id="shop", image_ids=["gone"], request_id="remembered"
        )
        await catalog.stub.DeleteEntries(request)
    async with running_catalog(settings_for(tmp_path)) as catalog:
        found = await catalog.library("shop")
        assert (found.uid, found.display_name, found.entry_count) == (created.uid, "Shop", 1)
        assert await catalog.get("shop", "a") == [stored]
        # Types of tags and remembered requests, too.
        (result,) = await catalog.put("shop", make_entry("b", tags={"price": 1}))
        assert result.HasField("error")
        request.image_ids[:] = ["another"]
        with refused(Reason.REQUEST_ID_REUSED):
            await catalog.stub.DeleteEntries(request)


async def test_a_data_folder_has_one_owner(tmp_path: Path) -> None:
    impatient = EdgeStorage(replace(edge_settings(tmp_path), lock_wait_s=0.1))
    async with running_catalog(settings_for(tmp_path)) as catalog:
        with pytest.raises(FolderLockedError, match="in use by another Catalog"):
            async with running_catalog(settings_for(tmp_path), impatient):
                pass
        await catalog.make_library("shop")


async def test_a_half_made_library_is_swept_at_the_start(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    storage = open_storage(settings)
    folder = collections_of(tmp_path)

    async def fail(*_: object) -> None:
        raise storage_error()  # as good as a kill: nothing after it runs

    async with running_catalog(settings, storage) as catalog:
        await catalog.make_library("whole")
        storage.create_collection = fail  # type: ignore[method-assign]
        with refused(Reason.STORAGE_UNAVAILABLE):
            await catalog.make_library("half")
    # A folder that no metadata knows, one without a finished shard, and a left copy.
    (folder / "0123").mkdir()
    (folder / "0123" / CURRENT_FILE).write_text("0")
    (uid,) = {path.name for path in folder.iterdir()} - {"_meta", LOCK_FILE, "0123"}
    (folder / uid / "7").mkdir()

    async with running_catalog(settings_for(tmp_path)) as catalog:
        names = {path.name for path in folder.iterdir()}
        assert names == {"_meta", LOCK_FILE, uid}
        assert {path.name for path in (folder / uid).iterdir()} == {"0", CURRENT_FILE}
        with refused(Reason.LIBRARY_NOT_FOUND):
            await catalog.library("half")
        await catalog.make_library("half")


async def test_a_half_deleted_library_is_swept_at_the_start(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    storage = open_storage(settings)

    async def fail(*_: object) -> None:
        raise storage_error()

    async with running_catalog(settings, storage) as catalog:
        await catalog.make_library("shop")
        storage.drop_collection = fail  # type: ignore[method-assign]
        with refused(Reason.STORAGE_UNAVAILABLE):
            await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id="shop"))
    async with running_catalog(settings_for(tmp_path)) as catalog:
        with refused(Reason.LIBRARY_NOT_FOUND):
            await catalog.library("shop")
        names = {path.name for path in collections_of(tmp_path).iterdir()}
        assert names == {"_meta", LOCK_FILE}


async def test_a_deleted_library_leaves_no_files(tmp_path: Path) -> None:
    async with running_catalog(settings_for(tmp_path)) as catalog:
        await catalog.make_library("shop")
        await catalog.store("shop", make_entry("a"))
        await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id="shop"))
        names = {path.name for path in collections_of(tmp_path).iterdir()}
        assert names == {"_meta", LOCK_FILE}


@contextlib.asynccontextmanager
async def edge_catalog(folder: Path, **changes: str) -> AsyncIterator[tuple[Catalog, EdgeStorage]]:
    settings = settings_for(folder, **changes)
    storage = open_storage(settings)
    assert isinstance(storage, EdgeStorage)
    async with running_catalog(settings, storage) as catalog:
        yield catalog, storage


async def test_an_engine_that_dies_is_started_anew(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path) as (catalog, storage):
        await catalog.make_library("shop")
        await catalog.store("shop", make_entry("a"))
        os.kill(engine_pid(storage), signal.SIGSTOP)
        waiting = asyncio.create_task(catalog.library("shop"))
        await until(lambda: storage._engine is not None and storage._engine._pending)
        os.kill(engine_pid(storage), signal.SIGKILL)
        with refused(Reason.STORAGE_UNAVAILABLE):
            await waiting
        assert (await catalog.library("shop")).entry_count == 1
        await catalog.store("shop", make_entry("b"))
        assert await catalog.find("shop") == {"a", "b"}


async def test_an_engine_error_tells_the_caller_no_internals(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path) as (catalog, _):
        created = await catalog.make_library("shop")
        await catalog.store("shop", make_entry("a"))
    # A shard that can't be opened: its configuration is broken.
    config = collections_of(tmp_path) / created.uid / "0" / "edge_config.json"
    config.write_text("broken")
    async with edge_catalog(tmp_path) as (catalog, _):
        with refused(Reason.STORAGE_UNAVAILABLE) as errors:
            await catalog.library("shop")
        assert errors[0].message == "the storage engine failed"
        await catalog.make_library("another")


async def test_a_full_disk_refuses_writes_and_leaves_reads(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path) as (catalog, _):
        await catalog.make_library("shop")
        await catalog.store("shop", make_entry("a"))
    # More free space asked for than any disk has.
    async with edge_catalog(tmp_path, MIN_FREE_MIB=str(1 << 40)) as (catalog, _):
        with refused(Reason.STORAGE_UNAVAILABLE) as errors:
            await catalog.put("shop", make_entry("b"))
        assert errors[0].message == "no space is left for the storage engine"
        with refused(Reason.STORAGE_UNAVAILABLE):
            await catalog.make_library("another")
        assert await catalog.nearest("shop", turned(0)) == ["a"]
        assert await catalog.delete("shop", "a") == 1
        await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id="shop"))


def test_the_least_recently_used_shards_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagesearch_services.catalog.edge.data_folder.MAX_OPEN", 2)
    engine = Engine(edge_settings(tmp_path))

    def run(command: str, *arguments: object) -> Any:
        result = engine.execute(command, arguments)
        assert not isinstance(result, Failure)
        return result

    try:
        point = Point(bytes(16), {SPACE: turned(0)}, {"image_id": "a"})
        for name in "abc":
            run("create_collection", name, [VectorSpace(SPACE, 16)], {})
            run("upsert", name, [point])
        assert set(engine._folder._open) == {"b", "c"}
        assert run("stats", "b").point_count == 1
        assert run("stats", "a").point_count == 1
        assert set(engine._folder._open) == {"b", "a"}
    finally:
        engine.close()


async def fill(catalog: Catalog, library_id: str, count: int, start: int = 0) -> list[bytes]:
    vectors = random_units(count, 64, seed=start)
    for first in range(0, count, 500):
        entries = []
        for n in range(first, min(first + 500, count)):
            entry = pb.Entry(image_id=f"image {start + n}")
            entry.vectors.add(space=SPACE, values=vectors[n])
            entries.append(entry)
        await catalog.store(library_id, *entries)
    return vectors


async def hits_among_nearest(
    catalog: Catalog, library_id: str, queries: Sequence[bytes], limit: int = 10
) -> int:
    """Count the hits of all queries that are among the nearest entries by brute force."""
    uids: list[bytes] = []
    values: list[bytes] = []
    request = pb.ListEntriesRequest(library_id=library_id, page_size=1000, include_vectors=True)
    while True:
        page = await catalog.stub.ListEntries(request)
        uids += (entry.uid for entry in page.entries)
        values += (entry.vectors[0].values for entry in page.entries)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    stored = np.frombuffer(b"".join(values), "<f4").reshape(len(uids), -1)
    found = 0
    for query in queries:
        (hits,) = await catalog.query(library_id, query, limit=limit)
        nearest = np.argsort(-(stored @ np.frombuffer(query, "<f4")))[:limit]
        found += len({hit.uid for hit in hits} & {uids[row] for row in nearest})
    return found


async def test_searches_and_writes_go_on_while_an_index_is_built(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path, INDEXING_THRESHOLD="6000") as (catalog, storage):
        await catalog.make_library("shop", spaces=[{"name": SPACE, "dimensions": 64}])
        vectors = await fill(catalog, "shop", 6000)
        (uid,) = storage._indexer._tasks
        folder = collections_of(tmp_path) / uid
        await until((folder / "1").exists)
        await until(lambda: uid in storage._indexer._written_uids)
        turns = 0
        while uid in storage._indexer._tasks and turns < 500:
            # Found at once, whether new, overwritten or deleted.
            entry = pb.Entry(image_id=f"new {turns}")
            entry.vectors.add(space=SPACE, values=random_units(1, 64, seed=100_000 + turns)[0])
            overwritten = pb.Entry(image_id=f"image {turns}")
            overwritten.vectors.add(
                space=SPACE, values=random_units(1, 64, seed=200_000 + turns)[0]
            )
            await catalog.store("shop", entry, overwritten, allow_overwrite=[False, True])
            await catalog.delete("shop", f"image {5999 - turns}")
            for sent in (entry, overwritten):
                (hits,) = await catalog.query(
                    "shop", sent.vectors[0].values, include_entries=True, limit=1
                )
                assert hits[0].entry.image_id == sent.image_id
            turns += 1
        await until(lambda: uid not in storage._indexer._tasks, timeout_s=120)
        assert turns > 3
        assert {path.name for path in folder.iterdir()} == {"1", CURRENT_FILE}
        library = await catalog.library("shop")
        assert library.entry_count == 6000
        assert library.unindexed_vector_count <= 4 * turns
        for turn in range(turns):
            for name, seed in ((f"new {turn}", 100_000), (f"image {turn}", 200_000)):
                (hits,) = await catalog.query(
                    "shop", random_units(1, 64, seed=seed + turn)[0], include_entries=True, limit=1
                )
                assert hits[0].entry.image_id == name
        assert await catalog.get("shop", *(f"image {5999 - turn}" for turn in range(turns))) == []
        assert await hits_among_nearest(catalog, "shop", vectors[1000:1100]) >= 980
    async with edge_catalog(tmp_path) as (catalog, _):
        reopened = await catalog.library("shop")
        assert reopened.entry_count == 6000
        assert reopened.unindexed_vector_count <= 4 * turns


@pytest.mark.parametrize("compact", [True, False])
async def test_a_library_keeps_the_datatypes_it_was_made_with(
    tmp_path: Path, compact: bool
) -> None:
    async with edge_catalog(tmp_path, INDEXING_THRESHOLD="1500") as (catalog, storage):
        spaces = [
            {"name": SPACE, "dimensions": 64, "compact": compact},
            {"name": "words@1", "sparse": True, "compact": compact},
        ]
        await catalog.make_library("shop", spaces=spaces)
        vectors = await fill(catalog, "shop", 1500)
        (uid,) = storage._indexer._tasks
        await until(lambda: uid not in storage._indexer._tasks)
        folder = collections_of(tmp_path) / uid / "1"
        config = json.loads((folder / "edge_config.json").read_text())
        kinds = [config["vectors"][SPACE], config["sparse_vectors"]["words@1"]]
        names = ["turbo8", "float16"] if compact else [None, None]
        assert [kind.get("datatype") for kind in kinds] == names
        file = "tq_vectors.dat" if compact else "matrix.dat"
        (kept,) = folder.glob(f"segments/*/vector_storage-{SPACE}/{file}")
        assert kept.stat().st_size // 1500 in (range(64, 80) if compact else range(256, 260))
        assert await catalog.nearest("shop", vectors[77], limit=1) == ["image 77"]


async def test_a_tag_first_used_while_an_index_is_built_is_filterable(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path, INDEXING_THRESHOLD="2000") as (catalog, storage):
        await catalog.make_library("shop", spaces=[{"name": SPACE, "dimensions": 64}])
        await fill(catalog, "shop", 2000)
        (uid,) = storage._indexer._tasks
        await until(lambda: uid in storage._indexer._written_uids)
        tagged = pb.Entry(image_id="tagged", tags={"late": {"bool_value": True}})
        tagged.vectors.add(space=SPACE, values=random_units(1, 64, seed=9)[0])
        await catalog.store("shop", tagged)
        await until(lambda: uid not in storage._indexer._tasks)
        assert (collections_of(tmp_path) / uid / CURRENT_FILE).read_text() == "1"
        assert await catalog.find("shop", where("tags.late", "=", True)) == {"tagged"}
    shard = qdrant_edge.EdgeShard.load(str(collections_of(tmp_path) / uid / "1"))
    assert {"tags.late", "category", "sharpness"} <= shard.info().payload_schema.keys()
    shard.close()


async def test_stopping_does_not_wait_for_an_index(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path, INDEXING_THRESHOLD="20000") as (catalog, storage):
        await catalog.make_library("shop", spaces=[{"name": SPACE, "dimensions": 64}])
        await fill(catalog, "shop", 20_000)
        (uid,) = storage._indexer._tasks
        await until(lambda: uid in storage._indexer._written_uids)
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 5
    async with edge_catalog(tmp_path) as (catalog, _):
        assert (await catalog.library("shop")).entry_count == 20_000
        assert {path.name for path in (collections_of(tmp_path) / uid).iterdir()} == {
            "0",
            CURRENT_FILE,
        }


async def test_a_library_can_be_deleted_while_its_index_is_built(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path, INDEXING_THRESHOLD="5000") as (catalog, storage):
        await catalog.make_library("shop", spaces=[{"name": SPACE, "dimensions": 64}])
        await fill(catalog, "shop", 5000)
        (uid,) = storage._indexer._tasks
        await until(lambda: uid in storage._indexer._written_uids)
        await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id="shop"))
        assert not (collections_of(tmp_path) / uid).exists()
        await catalog.make_library("shop")


async def test_a_call_that_loses_its_caller_is_done_to_the_end(tmp_path: Path) -> None:
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


async def test_a_long_search_does_not_stop_the_others(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path, INDEXING_THRESHOLD="0") as (catalog, _):
        await catalog.make_library("shop", spaces=[{"name": SPACE, "dimensions": 64}])
        await catalog.make_library("other")
        vectors = await fill(catalog, "shop", 10_000)
        long = asyncio.create_task(catalog.query("shop", *vectors[:100], limit=1000))
        answered = 0
        while not long.done():
            await catalog.library("other")
            answered += 1
        assert answered > 1
        assert len(await long) == 100


async def test_a_broken_promise_of_the_engine_is_found_by_health(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path) as (catalog, storage):
        await storage.check()
        os.kill(engine_pid(storage), signal.SIGKILL)
        await until(lambda: storage._engine is not None and not storage._engine.alive)
        # Health brings it back by itself.
        await storage.check()
        await catalog.make_library("shop")
        assert await catalog.nearest("shop", turned(0)) == []


@pytest.mark.parametrize("available_bytes", [0, 1 << 40])
def test_payload_that_can_not_be_read_ahead_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available_bytes: int
) -> None:
    monkeypatch.setattr(page_cache, "_available_bytes", lambda: available_bytes)
    pages = tmp_path / "segments" / "one" / "payload_storage"
    pages.mkdir(parents=True)
    (pages / "page_0.dat").write_bytes(bytes(3 << 20))
    (pages / "page_1.dat").symlink_to(tmp_path / "gone")
    page_cache.read_payload_ahead(tmp_path)
    page_cache.read_payload_ahead(tmp_path / "gone")
