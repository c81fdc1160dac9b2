"""Durability of the embedded engine after a kill or a restart, and cleanup at the start."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.catalog.backends import open_storage
from imagesearch_services.catalog.edge.data_folder import LOCK_FILE
from imagesearch_services.catalog.edge.files import CURRENT_FILE
from imagesearch_services.catalog.edge.layout import RECORD_FILE
from imagesearch_services.catalog.storage import storage_error
from imagesearch_services.common.errors import Reason
from tests.contract.catalog.support import (
    make_entry,
    random_units,
    refused,
    running_catalog,
    settings_for,
    where,
)
from tests.integration.catalog.edge_support import (
    collections_folder,
)

ROOT = Path(__file__).parents[3]


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
        # Kill the Catalog, its engine and its index builder together.
        os.killpg(importer.pid, signal.SIGKILL)
    numbers += [int(line) for line in importer.stdout.read().split("\n")[:-1]]
    importer.wait()

    async with running_catalog(settings_for(tmp_path)) as catalog:
        library = await catalog.library("imported")
        assert library.entry_count >= len(numbers)
        for start in range(0, len(numbers), 500):
            batch = numbers[start : start + 500]
            image_ids = [f"image {number}" for number in batch]
            found = await catalog.get("imported", *image_ids, include_vectors=True)
            assert [entry.image_id for entry in found] == image_ids
            stored = np.frombuffer(b"".join(entry.vectors[0].values for entry in found), "<f4")
            sent = np.frombuffer(b"".join(random_units(1, seed=n)[0] for n in batch), "<f4")
            np.testing.assert_allclose(stored, sent, atol=1e-6)
        last = numbers[-1]
        assert await catalog.find("imported", where("tags.n", "=", last)) == {f"image {last}"}
        assert await catalog.nearest("imported", random_units(1, seed=last)[0], limit=1) == [
            f"image {last}"
        ]


async def test_libraries_entries_and_request_ids_survive_a_restart(tmp_path: Path) -> None:
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
        # Tag types and the ids of answered requests survive, too.
        (result,) = await catalog.put("shop", make_entry("b", tags={"price": "low"}))
        assert result.HasField("error")
        request.image_ids[:] = ["another"]
        with refused(Reason.REQUEST_ID_REUSED):
            await catalog.stub.DeleteEntries(request)


async def test_a_start_removes_a_partly_created_library(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    storage = open_storage(settings)
    folder = collections_folder(tmp_path)

    async def fail(*_: object) -> None:
        raise storage_error()  # simulates a kill: the code after the call does not run

    async with running_catalog(settings, storage) as catalog:
        await catalog.make_library("whole")
        storage.create_collection = fail  # type: ignore[method-assign]
        with refused(Reason.STORAGE_UNAVAILABLE):
            await catalog.make_library("half")
    # Create a collection without a library, and the copy of an interrupted index build.
    (folder / "0123").mkdir()
    (folder / "0123" / CURRENT_FILE).write_text("0")
    (uid,) = {path.name for path in folder.iterdir()} - {"_meta", LOCK_FILE, "0123"}
    (folder / uid / "7").mkdir()

    async with running_catalog(settings_for(tmp_path)) as catalog:
        names = {path.name for path in folder.iterdir()}
        assert names == {"_meta", LOCK_FILE, uid}
        assert {path.name for path in (folder / uid).iterdir()} == {"0", CURRENT_FILE, RECORD_FILE}
        # Nothing says what the collection without a library was, so it is not deleted.
        (kept,) = (tmp_path / "catalog" / "quarantine").iterdir()
        assert (kept / CURRENT_FILE).read_text() == "0"
        with refused(Reason.LIBRARY_NOT_FOUND):
            await catalog.library("half")
        await catalog.make_library("half")


async def test_a_start_removes_a_partly_deleted_library(tmp_path: Path) -> None:
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
        names = {path.name for path in collections_folder(tmp_path).iterdir()}
        assert names == {"_meta", LOCK_FILE}


async def test_a_deleted_library_leaves_no_files(tmp_path: Path) -> None:
    async with running_catalog(settings_for(tmp_path)) as catalog:
        await catalog.make_library("shop")
        await catalog.store("shop", make_entry("a"))
        await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id="shop"))
        names = {path.name for path in collections_folder(tmp_path).iterdir()}
        assert names == {"_meta", LOCK_FILE}
