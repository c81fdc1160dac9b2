"""Starts with a data folder that has lost files, or has older ones: nothing is deleted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.catalog.__main__ import main
from imagesearch_services.catalog.edge import documents
from imagesearch_services.catalog.edge.files import CURRENT_FILE
from imagesearch_services.catalog.edge.layout import (
    CONFIG_FILE,
    RECORD_FILE,
    identity_path,
    quarantine_path,
)
from imagesearch_services.catalog.thumbnails.installation import OWNER
from imagesearch_services.catalog.thumbnails.store import ThumbnailRef
from imagesearch_services.common.errors import Reason
from tests.contract.catalog.support import (
    Catalog,
    make_entry,
    refused,
    running_catalog,
    settings_for,
    vector_at,
    where,
)
from tests.integration.catalog.edge_support import collections_folder
from tests.waiting import until

JPEG = b"\xff\xd8 one \xff\xd9"
LIBRARIES = ("first", "second")


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """Return a data folder with two libraries of two entries."""
    async with running_catalog(settings_for(tmp_path)) as catalog:
        for library_id in LIBRARIES:
            await catalog.make_library(library_id, display_name=library_id.title())
            await catalog.store(
                library_id,
                make_entry("near", vector_at(0), tags={"n": 1}, thumbnail=JPEG),
                make_entry("far", vector_at(90), tags={"n": 2}),
            )
    return tmp_path


async def assert_complete(catalog: Catalog, library_id: str) -> None:
    library = await catalog.library(library_id)
    assert (library.display_name, library.entry_count) == (library_id.title(), 2)
    assert await catalog.nearest(library_id, vector_at(10)) == ["near", "far"]
    assert await catalog.find(library_id, where("tags.n", "=", 2)) == {"far"}
    assert await catalog.thumbnails(library_id, "near") == [JPEG]


async def listed(catalog: Catalog) -> dict[str, int]:
    response = await catalog.stub.ListLibraries(pb.ListLibrariesRequest())
    return {library.library_id: library.entry_count for library in response.libraries}


async def uid_of(data: Path, library_id: str) -> str:
    """Return the uid of a library, read from the copies of the records."""
    for file in collections_folder(data).glob(f"*/{RECORD_FILE}"):
        record = json.loads(file.read_text())["content"]
        if record["library_id"] == library_id:
            return file.parent.name
    raise AssertionError(library_id)


async def sweep(data: Path, unserved_uid: str) -> None:
    """Sweep the thumbnails; assert that orphans are removed, but those of `unserved_uid` kept."""
    folder = data / "catalog" / "thumbnails"
    orphan = ThumbnailRef.new(await uid_of(data, "second"), bytes(16), JPEG)
    kept = ThumbnailRef.new(unserved_uid, bytes(16), JPEG)
    for ref in (orphan, kept):
        (folder / ref.blob_name).parent.mkdir(parents=True, exist_ok=True)
        (folder / ref.blob_name).write_bytes(JPEG)
    async with running_catalog(settings_for(data), sweep_interval_s=0.02):
        await until(lambda: not (folder / orphan.blob_name).exists())
        # Each page is swept at once, and these blobs are on the same page.
        assert (folder / kept.blob_name).exists()


@pytest.mark.parametrize("lost", ["folder", "current", "config", "identities"])
async def test_lost_metadata_is_rebuilt_from_the_libraries(data: Path, lost: str) -> None:
    metadata = collections_folder(data) / "_meta"
    if lost == "folder":
        shutil.rmtree(metadata)
    elif lost == "current":
        (metadata / CURRENT_FILE).unlink()
    elif lost == "config":
        (metadata / "0" / CONFIG_FILE).write_bytes(b"{")
    else:
        shutil.rmtree(metadata)
        identity_path(collections_folder(data)).unlink()
        (data / "catalog" / "thumbnails" / OWNER).write_bytes(b"")
    for _ in range(2):
        async with running_catalog(settings_for(data)) as catalog:
            for library_id in LIBRARIES:
                await assert_complete(catalog, library_id)


async def test_libraries_made_after_a_backup_of_the_metadata_are_served(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    async with running_catalog(settings_for(tmp_path)) as catalog:
        await catalog.make_library("first")
    shutil.copytree(collections_folder(tmp_path) / "_meta", backup)
    async with running_catalog(settings_for(tmp_path)) as catalog:
        await catalog.stub.UpdateLibrary(
            pb.UpdateLibraryRequest(
                library={"library_id": "first", "display_name": "First"},
                update_mask=FieldMask(paths=["display_name"]),
            )
        )
        await catalog.make_library("second", display_name="Second")
        for library_id in LIBRARIES:
            await catalog.store(
                library_id,
                make_entry("near", vector_at(0), tags={"n": 1}, thumbnail=JPEG),
                make_entry("far", vector_at(90), tags={"n": 2}),
            )
    shutil.rmtree(collections_folder(tmp_path) / "_meta")
    backup.rename(collections_folder(tmp_path) / "_meta")
    async with running_catalog(settings_for(tmp_path)) as catalog:
        for library_id in LIBRARIES:
            await assert_complete(catalog, library_id)


async def test_a_library_without_metadata_and_record_is_set_aside_until_the_metadata_is_back(
    data: Path,
) -> None:
    folder, aside = collections_folder(data), data / "aside"
    uid = await uid_of(data, "first")
    (folder / uid / RECORD_FILE).unlink()  # as in a folder of an earlier version
    (folder / "_meta").rename(aside)
    async with running_catalog(settings_for(data)) as catalog:
        assert await listed(catalog) == {"second": 2}
    (kept,) = quarantine_path(folder).iterdir()
    assert kept.name.startswith(uid)
    await sweep(data, uid)
    shutil.rmtree(folder / "_meta")
    aside.rename(folder / "_meta")
    async with running_catalog(settings_for(data)) as catalog:
        for library_id in LIBRARIES:
            await assert_complete(catalog, library_id)


async def test_a_library_whose_generation_in_use_is_lost_is_served_again(data: Path) -> None:
    folder = collections_folder(data)
    (folder / await uid_of(data, "first") / CURRENT_FILE).unlink()
    (folder / await uid_of(data, "second") / CURRENT_FILE).write_bytes(b"")
    async with running_catalog(settings_for(data)) as catalog:
        for library_id in LIBRARIES:
            await assert_complete(catalog, library_id)


async def test_a_damaged_library_is_refused_and_the_others_are_served(data: Path) -> None:
    folder = collections_folder(data)
    shard = folder / await uid_of(data, "first") / "0"
    shutil.copytree(shard, data / "saved")
    for broken in ("a file of the shard", "the whole shard"):
        if broken == "a file of the shard":
            for file in shard.glob("segments/*/segment.json"):
                file.write_bytes(b"{")
        else:
            shutil.rmtree(shard)
        await sweep(data, shard.parent.name)
        async with running_catalog(settings_for(data)) as catalog:
            with refused(Reason.LIBRARY_DAMAGED) as errors:
                await catalog.nearest("first", vector_at(0))
            assert errors[0].metadata == {"library": "libraries/first"}
            with refused(Reason.LIBRARY_DAMAGED):
                await catalog.library("first")
            with refused(Reason.LIBRARY_DAMAGED):
                await catalog.put("first", make_entry("new"))
            with refused(Reason.LIBRARY_DAMAGED):
                await catalog.stub.DeleteEntries(
                    pb.DeleteEntriesRequest(library_id="first", image_ids=["near"])
                )
            response = await catalog.stub.ListLibraries(pb.ListLibrariesRequest())
            assert [
                (library.library_id, library.entry_count, library.damaged)
                for library in response.libraries
            ] == [("first", 0, True), ("second", 2, False)]
            await assert_complete(catalog, "second")
    shutil.copytree(data / "saved", shard)
    async with running_catalog(settings_for(data)) as catalog:
        await assert_complete(catalog, "first")
        await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id="first"))
    async with running_catalog(settings_for(data)) as catalog:
        assert await listed(catalog) == {"second": 2}


def test_a_downgrade_is_refused_with_a_message_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as later:
        later.setattr(documents, "FORMAT", 99)
        collections_folder(tmp_path).mkdir(parents=True)
        documents.write_document(identity_path(collections_folder(tmp_path)), {})
    monkeypatch.setenv("IMAGESEARCH_CATALOG_DATA_DIR", str(tmp_path))
    assert main() == 2
    assert "install the later version" in capsys.readouterr().err
