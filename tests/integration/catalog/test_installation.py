"""Ownership of a blob store: an installation never deletes thumbnails of another."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from imagesearch_services.catalog.__main__ import main
from imagesearch_services.catalog.backends import open_blob_store
from imagesearch_services.catalog.payloads import METADATA, METADATA_INDEXES
from imagesearch_services.catalog.thumbnails import sweep
from imagesearch_services.catalog.thumbnails.installation import (
    OWNER,
    ForeignStoreError,
    Installation,
)
from imagesearch_services.common.errors import ServiceError
from tests.contract.catalog.support import (
    make_entry,
    make_local_cluster,
    running_catalog,
    settings_for,
)
from tests.ports import free_port
from tests.waiting import until

JPEG = b"\xff\xd8 one \xff\xd9"


async def fill(data_dir: Path, folder: Path) -> None:
    """Store a thumbnail in a new installation."""
    async with running_catalog(settings_for(data_dir, BLOB_STORE=folder.as_uri())) as catalog:
        await catalog.make_library("a")
        await catalog.store("a", make_entry("x", thumbnail=JPEG))


def thumbnails(folder: Path) -> list[Path]:
    return list(folder.rglob("*.jpg"))


async def test_a_second_installation_does_not_start_and_deletes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    await fill(tmp_path / "first", folder)
    second = settings_for(tmp_path / "second", BLOB_STORE=folder.as_uri())
    with pytest.raises(ForeignStoreError, match="belongs to another installation"):
        async with running_catalog(second):
            pass
    assert len(thumbnails(folder)) == 1
    first = settings_for(tmp_path / "first", BLOB_STORE=folder.as_uri())
    async with running_catalog(first) as catalog:
        assert await catalog.thumbnails("a", "x") == [JPEG]


async def test_a_foreign_store_that_is_unavailable_at_the_start_is_never_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "RETRY_S", 0.02)
    folder, aside = tmp_path / "shared", tmp_path / "aside"
    await fill(tmp_path / "first", folder)
    folder.rename(aside)
    settings = settings_for(tmp_path / "second", BLOB_STORE=folder.as_uri())
    refusals = 0
    claim = Installation.claim

    async def counted(installation: Installation) -> None:
        nonlocal refusals
        try:
            await claim(installation)
        except ForeignStoreError:
            refusals += 1
            raise

    monkeypatch.setattr(Installation, "claim", counted)
    blobs = open_blob_store(settings)
    assert blobs is not None
    shutil.rmtree(folder)
    folder.write_bytes(b"a file")  # makes the store unavailable at the start
    async with running_catalog(settings, sweep_interval_s=0.02, blobs=blobs):
        assert refusals == 0
        folder.unlink()
        aside.rename(folder)
        await until(lambda: refusals > 2)
    assert len(thumbnails(folder)) == 1


async def test_catalogs_with_the_same_engine_are_one_installation(tmp_path: Path) -> None:
    storage = make_local_cluster()
    await storage.start()
    await storage.create_collection(METADATA, (), METADATA_INDEXES)
    blobs = open_blob_store(settings_for(tmp_path))
    assert blobs is not None
    await asyncio.gather(*(Installation(storage, blobs).claim() for _ in range(4)))
    await Installation(storage, blobs).claim()
    (owner,) = await blobs.get([OWNER])
    assert owner
    assert len(owner) == 32
    await storage.close()


async def test_an_unavailable_store_cannot_be_claimed(tmp_path: Path) -> None:
    storage = make_local_cluster()
    await storage.start()
    await storage.create_collection(METADATA, (), METADATA_INDEXES)
    settings = settings_for(
        tmp_path,
        BLOB_STORE="s3://nowhere",
        BLOB_ENDPOINT=f"http://127.0.0.1:{free_port()}",
        BLOB_ACCESS_KEY_ID="a",
        BLOB_SECRET_ACCESS_KEY="b",  # noqa: S106
    )
    blobs = open_blob_store(settings)
    assert blobs is not None
    with pytest.raises(ServiceError, match="does not answer"):
        await Installation(storage, blobs).claim()
    await storage.close()


def test_the_error_of_a_foreign_store_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / OWNER).write_text("f" * 32)
    monkeypatch.setenv("IMAGESEARCH_CATALOG_DATA_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("IMAGESEARCH_CATALOG_BLOB_STORE", folder.as_uri())
    monkeypatch.setenv("IMAGESEARCH_CATALOG_PORT", str(free_port()))
    assert main() == 2
    error = capsys.readouterr().err
    assert "IMAGESEARCH_CATALOG_BLOB_STORE" in error
    assert "f" * 32 in error
