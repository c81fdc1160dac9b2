"""Counts of libraries are read from files, without opening the libraries, and are never stale."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.catalog.edge.counts import COUNTS_FILE
from imagesearch_services.catalog.edge.data_folder import DataFolder
from tests.contract.catalog.support import Catalog, make_entry
from tests.integration.catalog.edge_support import (
    collections_folder,
    edge_catalog,
    edge_settings,
    engine_pid,
)
from tests.waiting import until


async def counts(catalog: Catalog) -> dict[str, int]:
    page = await catalog.stub.ListLibraries(pb.ListLibrariesRequest())
    return {library.library_id: library.entry_count for library in page.libraries}


async def fill(folder: Path) -> None:
    async with edge_catalog(folder) as (catalog, _):
        for number in range(3):
            await catalog.make_library(f"shop-{number}")
            await catalog.store(f"shop-{number}", *(make_entry(f"{n}") for n in range(number + 1)))


async def test_closed_libraries_are_counted_without_opening_them(tmp_path: Path) -> None:
    await fill(tmp_path)
    folder = DataFolder(edge_settings(tmp_path))
    names = [path.name for path in collections_folder(tmp_path).iterdir() if len(path.name) == 32]
    assert sorted(folder.stats(name).point_count for name in names) == [1, 2, 3]
    assert folder._open == {}
    folder.close()


async def test_damaged_counts_are_counted_again(tmp_path: Path) -> None:
    await fill(tmp_path)
    files = sorted(collections_folder(tmp_path).glob(f"*/0/{COUNTS_FILE}"))
    damaged = ["", "[1, -1]", "[1]", "null"]
    for file, content in zip(files, damaged, strict=True):
        file.write_text(content)
    async with edge_catalog(tmp_path) as (catalog, _):
        assert await counts(catalog) == {"shop-0": 1, "shop-1": 2, "shop-2": 3}


async def test_a_killed_engine_leaves_no_stale_counts(tmp_path: Path) -> None:
    await fill(tmp_path)
    async with edge_catalog(tmp_path) as (catalog, storage):
        assert await counts(catalog) == {"shop-0": 1, "shop-1": 2, "shop-2": 3}
        await catalog.store("shop-0", make_entry("new"))
        await catalog.delete("shop-2", "0")
        engine = storage._engine
        assert engine is not None
        os.kill(engine_pid(storage), signal.SIGKILL)
        await until(lambda: not engine.alive)
        assert await counts(catalog) == {"shop-0": 2, "shop-1": 2, "shop-2": 2}
        # The counts of the reopened libraries are stored, and forgotten at the next write.
        await catalog.store("shop-2", make_entry("another"))
        assert (await counts(catalog))["shop-2"] == 3
