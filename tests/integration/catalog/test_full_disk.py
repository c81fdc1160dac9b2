"""A full disk: writes are refused as a whole, everything else goes on, and space ends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.common.errors import Reason
from tests.contract.catalog.support import make_entry, refused, running_catalog, settings_for
from tests.faults.loop_disk import LoopDisk, loop_disk, unsupported
from tests.integration.catalog.edge_support import edge_catalog, engine_pid

JPEG = b"\xff\xd8 one \xff\xd9"


@pytest.fixture
def disk() -> Iterator[LoopDisk]:
    """Return a small ext4 disk of its own; it takes root and loop devices."""
    if reason := unsupported():
        pytest.skip(f"a full disk can't be made here: it {reason}")
    with loop_disk(256) as disk:
        yield disk


async def test_a_full_disk_refuses_writes_and_allows_reads_and_deletions(disk: LoopDisk) -> None:
    data_dir = disk.path / "data"
    async with edge_catalog(data_dir, MIN_FREE_MIB="16") as (catalog, storage):
        await catalog.make_library("a")
        await catalog.make_library("b")
        uid = (await catalog.library("a")).uid
        names = [f"{number}" for number in range(40)]
        await catalog.store("a", *(make_entry(name, thumbnail=JPEG) for name in names))
        files = sorted(await catalog.blob_names(uid))
        pid = engine_pid(storage)
        filler = disk.fill()
        assert disk.free_bytes() == 0

        with refused(Reason.STORAGE_FULL):
            await catalog.put("a", make_entry("new", thumbnail=JPEG))
        with refused(Reason.STORAGE_FULL):
            await catalog.update("a", pb.Entry(image_id="0", entity_id="e"), "entity_id")
        with refused(Reason.STORAGE_FULL):
            await catalog.make_library("c")
        assert sorted(await catalog.blob_names(uid)) == files
        assert len(await catalog.find("a")) == 40
        assert await catalog.thumbnails("a", "0") == [JPEG]
        assert await catalog.delete("a", *names[:10], request_id="deleted") == 10
        await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id="b"))
        assert engine_pid(storage) == pid

        filler.unlink()
        await catalog.store("a", make_entry("new", thumbnail=JPEG))
        assert engine_pid(storage) == pid

    async with running_catalog(settings_for(data_dir, MIN_FREE_MIB="16")) as catalog:
        assert await catalog.find("a") == {*names[10:], "new"}
        assert await catalog.delete("a", *names[:10], request_id="deleted") == 10


async def test_a_catalog_starts_on_a_full_disk(disk: LoopDisk) -> None:
    data_dir = disk.path / "data"
    settings = settings_for(data_dir, MIN_FREE_MIB="16")
    async with running_catalog(settings) as catalog:
        await catalog.make_library("a")
        await catalog.store("a", make_entry("x"), make_entry("y"))
    disk.fill()
    async with running_catalog(settings) as catalog:
        assert await catalog.find("a") == {"x", "y"}
        assert await catalog.delete("a", "x") == 1
        with refused(Reason.STORAGE_FULL):
            await catalog.put("a", make_entry("z"))
    async with running_catalog(settings) as catalog:
        assert await catalog.find("a") == {"y"}


async def test_a_full_disk_of_thumbnails_refuses_whole_entries(
    tmp_path: Path, disk: LoopDisk
) -> None:
    folder = disk.path / "thumbnails"
    async with running_catalog(settings_for(tmp_path, BLOB_STORE=folder.as_uri())) as catalog:
        uid = (await catalog.make_library("a")).uid
        filler = disk.fill()
        large = bytes(64 << 10)
        with refused(Reason.STORAGE_FULL):
            await catalog.put("a", *(make_entry(f"{n}", thumbnail=large) for n in range(4)))
        assert await catalog.find("a") == set()
        assert await catalog.blob_names(uid) == []
        assert not [path for path in folder.rglob("*") if path.is_file() and "#" in path.name]
        filler.unlink()
        await catalog.store("a", make_entry("0", thumbnail=large))


async def test_a_refused_entry_leaves_no_thumbnail(tmp_path: Path) -> None:
    async with running_catalog(settings_for(tmp_path)) as catalog:
        uid = (await catalog.make_library("a", capacity=1)).uid
        entry = make_entry("x", thumbnail=JPEG, tags={"n": 1})
        await catalog.store("a", entry)
        for refused_entry in (
            make_entry("x", thumbnail=JPEG),  # exists
            make_entry("y", thumbnail=JPEG),  # the library is full
            make_entry("y", thumbnail=JPEG, tags={"n": "text"}),
        ):
            (result,) = await catalog.put("a", refused_entry)
            assert result.HasField("error")
        assert len(await catalog.blob_names(uid)) == 1
