"""Thumbnails after a kill, with orphans, and while the store is unavailable or hangs."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc.aio
import pytest

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.catalog.backends import open_blob_store, open_storage
from imagesearch_services.catalog.blobs import BlobSettings, BlobStore, open_blobs
from imagesearch_services.catalog.model import entry_uid
from imagesearch_services.catalog.settings import Settings
from imagesearch_services.catalog.storage import Point
from imagesearch_services.catalog.thumbnails import sweep
from imagesearch_services.catalog.thumbnails.installation import OWNER
from imagesearch_services.catalog.thumbnails.store import ThumbnailRef
from imagesearch_services.common.env import SettingsError
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.status import from_status
from imagesearch_services.common.types import Vector
from imagesearch_services.gateway.clients.catalog import CatalogClient
from imagesearch_services.gateway.ports import NearestQuery
from tests.contract.catalog.support import (
    SPACE,
    Catalog,
    make_entry,
    make_local_cluster,
    refused,
    running_catalog,
    settings_for,
    vector_at,
)
from tests.ports import free_port
from tests.s3_server import S3Server, running_s3
from tests.waiting import until

ROOT = Path(__file__).parents[3]
JPEG, OTHER_JPEG = b"\xff\xd8 one \xff\xd9", b"\xff\xd8 another \xff\xd9"
HOUR_S = 3600


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


def folder_of(data_dir: Path) -> Path:
    return data_dir / "catalog" / "thumbnails"


def files_in(folder: Path) -> list[Path]:
    """Return all files of a store except the blob that names its owner."""
    # os.walk tolerates that a folder is removed during the walk, Path.rglob fails.
    files = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return [file for file in files if file.name != OWNER]


def bucket_at(port: int) -> dict[str, str]:
    """Return the settings of a bucket at a local port."""
    return {
        "BLOB_STORE": "s3://nowhere",
        "BLOB_ENDPOINT": f"http://127.0.0.1:{port}",
        "BLOB_ACCESS_KEY_ID": "a",
        "BLOB_SECRET_ACCESS_KEY": "b",
    }


def plant(folder: Path, name: str, age_s: float = 0) -> Path:
    """Create a file in the folder of a store, with an age in seconds."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(JPEG)
    os.utime(file, (time.time() - age_s,) * 2)
    return file


def start_replacer(data_dir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.catalog.replacer", data_dir],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


async def test_a_kill_loses_no_thumbnail_and_leaves_no_orphan(tmp_path: Path) -> None:
    program = start_replacer(tmp_path)
    assert program.stdout is not None
    try:
        lines = [await asyncio.to_thread(program.stdout.readline) for _ in range(200)]
    finally:
        # Kill the Catalog and its engine together, during a call.
        os.killpg(program.pid, signal.SIGKILL)
    lines += program.stdout.read().split("\n")[:-1]
    program.wait()
    acknowledged = {int(number): int(round_) for number, round_ in map(str.split, lines)}

    async with running_catalog(settings_for(tmp_path)) as catalog:
        for number, round_ in acknowledged.items():
            (file,) = await catalog.thumbnails("replaced", f"image {number}")
            # The next round may have been stored although its answer did not arrive.
            assert file in {
                f"{number} {round_stored}".encode() for round_stored in (round_, round_ + 1)
            }
        count = (await catalog.library("replaced")).entry_count
        await until(lambda: len(files_in(folder_of(tmp_path))) == count)


async def test_the_sweep_removes_orphans_and_nothing_else(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    async with running_catalog(settings_for(tmp_path)) as catalog:
        uid = (await catalog.make_library("a")).uid
        (kept,) = await catalog.store("a", make_entry("kept", thumbnail=JPEG))
        (mine,) = files_in(folder)
        deleted_uid = (await catalog.make_library("b")).uid
        await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id="b"))

    version = "0" * 16
    orphans = [
        # Blobs of another version of an entry, a deleted entry, a deleted library, and a write that
        # was interrupted long ago.
        plant(folder, ThumbnailRef(uid, kept.uid, version).blob_name),
        plant(folder, ThumbnailRef(uid, bytes(16), version).blob_name),
        plant(folder, ThumbnailRef(deleted_uid, kept.uid, version).blob_name),
        plant(folder, f"{ThumbnailRef(uid, kept.uid, version).blob_name}#1", HOUR_S),
    ]
    # Nothing says that this library was deleted.
    unknown = plant(folder, ThumbnailRef("f" * 32, kept.uid, version).blob_name)
    foreign = [plant(folder, "README.txt"), plant(folder, f"{uid}/notes.jpg"), unknown]
    writing = plant(folder, f"{ThumbnailRef(uid, bytes(16), version).blob_name}#2")

    async with running_catalog(settings_for(tmp_path)) as catalog:
        await until(lambda: not any(file.exists() for file in orphans))
        assert all(file.exists() for file in (mine, writing, *foreign))
        assert await catalog.thumbnails("a", "kept") == [JPEG]


async def test_the_sweep_continues_after_a_foreign_folder(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    foreign = folder / "backup#1"
    foreign.mkdir(parents=True)
    os.utime(foreign, (0, 0))
    async with running_catalog(settings_for(tmp_path), sweep_interval_s=0.02) as catalog:
        uid = (await catalog.make_library("a")).uid
        orphan = plant(folder, ThumbnailRef(uid, bytes(16), "0" * 16).blob_name)
        await until(lambda: not orphan.exists())
        assert foreign.is_dir()


async def test_orphans_of_a_failed_deletion_are_swept_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "RETRY_S", 0.1)
    settings = settings_for(tmp_path)
    storage = open_storage(settings)
    delete = storage.delete

    async def delete_without_answer(collection: str, uids: Sequence[bytes]) -> None:
        await delete(collection, uids)
        raise ServiceError(Reason.STORAGE_UNAVAILABLE, "the answer is lost")

    async with running_catalog(settings, storage) as catalog:
        await catalog.make_library("a")
        await catalog.store("a", make_entry("x", thumbnail=JPEG))
        monkeypatch.setattr(storage, "delete", delete_without_answer)
        with refused(Reason.STORAGE_UNAVAILABLE):
            await catalog.delete("a", "x")
        await until(lambda: not files_in(folder_of(tmp_path)))


async def test_recent_orphans_of_a_shared_engine_are_not_swept(tmp_path: Path) -> None:
    """Another Catalog may be about to write the point that refers to a recent blob."""
    folder = tmp_path / "shared"
    settings = settings_for(tmp_path, BLOB_STORE=folder.as_uri())
    async with running_catalog(settings, make_local_cluster(), sweep_interval_s=0.02) as catalog:
        uid = (await catalog.make_library("a")).uid
        young = plant(folder, ThumbnailRef(uid, bytes(16), "0" * 16).blob_name)
        old = plant(folder, ThumbnailRef(uid, bytes(16), "1" * 16).blob_name, HOUR_S)
        await until(lambda: not old.exists())
        assert young.exists()


@pytest.mark.parametrize("store", ["folder", "bucket", "refused bucket", "refused key"])
async def test_entries_are_stored_with_a_warning_while_the_store_is_unavailable(
    tmp_path: Path, s3: S3Server, store: str
) -> None:
    changes = {
        "folder": {},
        "bucket": bucket_at(free_port()),
        "refused bucket": s3.settings(BLOB_STORE="s3://no-such-bucket"),
        "refused key": s3.settings(BLOB_SECRET_ACCESS_KEY="forged"),  # noqa: S106
    }[store]
    async with running_catalog(settings_for(tmp_path, **changes)) as catalog:
        if store == "folder":
            folder = folder_of(tmp_path)
            shutil.rmtree(folder)
            folder.write_bytes(b"a file")
        await catalog.make_library("a")
        entry, request_ids = make_entry("x", thumbnail=JPEG), ["put x"]
        (result,) = await catalog.put("a", entry, request_ids=request_ids)
        assert not result.entry.has_thumbnail
        assert len(result.warnings) == 1
        assert "was not kept" in result.warnings[0]
        (again,) = await catalog.put("a", entry, request_ids=request_ids)
        assert list(again.warnings) == list(result.warnings)
        assert await catalog.nearest("a", vector_at(0)) == ["x"]
        assert await catalog.thumbnails("a", "x") == [b""]
        assert await catalog.delete("a", "x") == 1


async def test_a_store_that_recovers_is_read_and_swept_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "RETRY_S", 0.1)
    folder, aside = folder_of(tmp_path), tmp_path / "aside"
    async with running_catalog(settings_for(tmp_path)) as catalog:
        await catalog.make_library("a")
        await catalog.make_library("b")
        names = [f"{number}" for number in range(4)]
        await catalog.store("a", *(make_entry(name, thumbnail=JPEG) for name in names))
        await catalog.store("b", *(make_entry(name, thumbnail=JPEG) for name in names))
        assert len(files_in(folder)) == 8

        folder.rename(aside)
        folder.write_bytes(b"a file")
        with refused(Reason.BLOB_STORE_UNAVAILABLE) as errors:
            await catalog.thumbnails("a", *names)
        assert errors[0].retry_after_s
        assert await catalog.delete("a", "0") == 1
        (replaced,) = await catalog.put(
            "a", make_entry("1", thumbnail=OTHER_JPEG), allow_overwrite=[True]
        )
        assert replaced.warnings
        await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id="b"))

        folder.unlink()
        aside.rename(folder)
        # Entry "1" does not have the thumbnail of its earlier picture.
        assert await catalog.thumbnails("a", *names) == [b"", b"", JPEG, JPEG]
        await until(lambda: len(files_in(folder)) == 2)


async def test_adding_does_not_wait_for_a_hanging_store(tmp_path: Path) -> None:
    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never_answer, "127.0.0.1", free_port())
    port = server.sockets[0].getsockname()[1]
    settings = settings_for(tmp_path, **bucket_at(port), BLOB_TIMEOUT_S="0.2")
    async with server, running_catalog(settings) as catalog:
        await catalog.make_library("a")
        entries = [make_entry(f"{number}", thumbnail=JPEG) for number in range(100)]
        async with asyncio.timeout(20):
            results = await catalog.put("a", *entries)
        assert all(result.entry.image_id and result.warnings for result in results)


async def test_a_query_is_answered_within_its_deadline_while_the_store_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = asyncio.Event()

    async def hang(*_: object) -> list[bytes | None]:
        await hanging.wait()
        return []

    async with running_catalog(settings_for(tmp_path, BLOB_TIMEOUT_S="600")) as catalog:
        await catalog.make_library("a")
        await catalog.store("a", make_entry("x", thumbnail=JPEG))
        monkeypatch.setattr(BlobStore, "get", hang)
        request = pb.QueryEntriesRequest(
            library_id="a",
            vectors=[{"space": SPACE, "values": vector_at(0)}],
            include_entries=True,
            thumbnail_count=1,
        )
        response = await catalog.stub.QueryEntries(request, timeout=5)
        assert [hit.entry.image_id for hit in response.results[0].hits] == ["x"]
        error = from_status(response.thumbnails_error)
        assert error is not None
        assert error.reason is Reason.BLOB_STORE_UNAVAILABLE
        hanging.set()


@pytest.mark.parametrize("call", ["put", "delete"])
async def test_a_hanging_store_does_not_block_other_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    hanging, released = asyncio.Event(), asyncio.Event()
    original = getattr(BlobStore, call)

    async def hang(store: BlobStore, blobs: object) -> object:
        hanging.set()
        await released.wait()
        return await original(store, blobs)

    settings = settings_for(tmp_path, BLOB_TIMEOUT_S="600")
    async with running_catalog(settings) as catalog, asyncio.TaskGroup() as tasks:
        await catalog.make_library("a")
        await catalog.store("a", make_entry("x", thumbnail=JPEG))
        monkeypatch.setattr(BlobStore, call, hang)
        try:
            if call == "put":
                blocked = tasks.create_task(catalog.put("a", make_entry("y", thumbnail=JPEG)))
            else:
                blocked = tasks.create_task(catalog.delete("a", "x"))
            async with asyncio.timeout(60):
                await hanging.wait()
                await catalog.store("a", make_entry("z"), make_entry("z2"))
                assert await catalog.delete("a", "z2") == 1
                await catalog.update("a", pb.Entry(image_id="z", entity_id="e"), "entity_id")
                assert "z" in await catalog.nearest("a", vector_at(0))
            assert not blocked.done()
        finally:
            released.set()
        await blocked
        assert await catalog.thumbnails("a", "y") == [JPEG if call == "put" else b""]


async def test_the_sweep_skips_thumbnails_whose_points_are_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tmp_path)
    storage = open_storage(settings)
    upsert = storage.upsert
    writing, swept = asyncio.Event(), asyncio.Event()

    async def upsert_after_a_sweep(collection: str, points: Sequence[Point]) -> None:
        if collection == uid:
            writing.set()
            await swept.wait()
        await upsert(collection, points)

    folder = folder_of(tmp_path)
    async with running_catalog(settings, storage, sweep_interval_s=0.05) as catalog:
        uid = (await catalog.make_library("a")).uid
        monkeypatch.setattr(storage, "upsert", upsert_after_a_sweep)
        putting = asyncio.create_task(catalog.put("a", make_entry("x", thumbnail=JPEG)))
        try:
            async with asyncio.timeout(60):
                await writing.wait()
                # The second orphan is removed by a later, complete sweep.
                for version in ("0" * 16, "1" * 16):
                    orphan = plant(folder, ThumbnailRef(uid, bytes(16), version).blob_name)
                    await until(lambda orphan=orphan: not orphan.exists())
        finally:
            swept.set()
        (result,) = await putting
        assert result.entry.has_thumbnail
        assert await catalog.thumbnails("a", "x") == [JPEG]


async def test_entries_without_a_blob_store_have_no_thumbnail_and_no_warning(
    tmp_path: Path,
) -> None:
    async with running_catalog(settings_for(tmp_path, BLOB_STORE="none")) as catalog:
        await catalog.make_library("a")
        (result,) = await catalog.put("a", make_entry("x", thumbnail=JPEG))
        assert not result.entry.has_thumbnail
        assert not result.warnings
        assert await catalog.thumbnails("a", "x") == [b""]


async def test_thumbnails_in_a_bucket_survive_a_restart(tmp_path: Path, s3: S3Server) -> None:
    async with running_catalog(settings_for(tmp_path, **s3.settings())) as catalog:
        await catalog.make_library("a")
        await catalog.store("a", make_entry("x", thumbnail=JPEG))
    async with running_catalog(settings_for(tmp_path, **s3.settings())) as catalog:
        assert await catalog.thumbnails("a", "x") == [JPEG]


async def test_a_read_during_a_replacement_returns_the_old_or_the_new_thumbnail(
    tmp_path: Path,
) -> None:
    async with running_catalog(settings_for(tmp_path)) as catalog:
        await catalog.make_library("a")
        await catalog.store("a", make_entry("x", thumbnail=b"0"))
        done = asyncio.Event()

        async def replace() -> None:
            for number in range(1, 40):
                entry = make_entry("x", thumbnail=b"%d" % number)
                await catalog.store("a", entry, allow_overwrite=[True])
            done.set()

        async def read() -> list[bytes]:
            return await _read_until(catalog, done)

        _, seen = await asyncio.gather(replace(), read())
        numbers = [int(file) for file in seen if file]
        assert numbers == sorted(numbers)
        assert await catalog.thumbnails("a", "x") == [b"39"]


async def _read_until(catalog: Catalog, done: asyncio.Event) -> list[bytes]:
    seen: list[bytes] = []
    while not done.is_set():
        seen += await catalog.thumbnails("a", "x")
    return seen


@pytest.mark.parametrize(
    "url", ["thumbnails", "file://host/folder", "ftp://host/folder", "s3://", "file:///proc/none"]
)
def test_an_invalid_store_url_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(SettingsError, match="cannot store thumbnails in"):
        open_blobs(BlobSettings(url=url, timeout_s=1))


def test_only_the_embedded_engine_has_a_default_folder(tmp_path: Path) -> None:
    assert open_blob_store(settings_for(tmp_path)) is not None
    assert folder_of(tmp_path).is_dir()
    assert open_blob_store(settings_for(tmp_path, BACKEND="cluster")) is None


def test_the_representation_of_settings_hides_secrets() -> None:
    settings = Settings.from_env({"IMAGESEARCH_CATALOG_BLOB_SECRET_ACCESS_KEY": "hush"})
    assert "hush" not in repr(settings)


async def test_the_gateway_requests_thumbnails_missing_from_hits_again(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    async with (
        running_catalog(settings) as catalog,
        grpc.aio.insecure_channel(f"127.0.0.1:{settings.server.port}") as channel,
    ):
        uid = (await catalog.make_library("a")).uid
        entries = [make_entry(name, vector_at(5 * row)) for row, name in enumerate("xyz")]
        entries[0].thumbnail = entries[2].thumbnail = JPEG
        await catalog.store("a", *entries)
        (lost,) = [name for name in await catalog.blob_names(uid) if entry_uid("z").hex() in name]
        await catalog.blobs.delete([lost])
        query = NearestQuery(
            library_id="a",
            library_uid=uid,
            vectors=[Vector(SPACE, vector_at(0))],
            filter=None,
            limit=3,
            min_similarity=None,
            distinct_entities=False,
            image_count=3,
            thumbnail_count=3,
        )
        (hits,) = await CatalogClient(channel, timeout_s=30).nearest(query)
        assert [hit.thumbnail for hit in hits] == [JPEG, b"", None]
