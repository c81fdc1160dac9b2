"""`check` reports what is wrong with a stopped data folder, unchanged; `repair` restores it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagesearch_services.catalog.__main__ import main
from imagesearch_services.catalog.edge.files import CURRENT_FILE
from imagesearch_services.catalog.edge.layout import CONFIG_FILE, RECORD_FILE, quarantine_path
from tests.contract.catalog.support import (
    make_entry,
    running_catalog,
    settings_for,
    vector_at,
    where,
)
from tests.integration.catalog.edge_support import collections_folder

JPEG = b"\xff\xd8 one \xff\xd9"
TEXT = "q7Zk-w3Xv-9mLp"


async def fill(data: Path) -> str:
    """Store a library with three entries; return its uid."""
    async with running_catalog(settings_for(data)) as catalog:
        library = await catalog.make_library("shop")
        await catalog.store(
            "shop",
            make_entry("near", vector_at(0), tags={"n": 1}, thumbnail=JPEG, features=b"f" * 99),
            make_entry("marked", vector_at(30), tags={"n": 2}, entity_id=TEXT),
            make_entry("far", vector_at(90), tags={"n": 3}),
        )
        await catalog.make_library("other")
        return library.uid


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    status = main([*map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def replace(shard: Path, pattern: str, old: bytes, new: bytes) -> None:
    """Replace bytes in the files of a shard."""
    files = [path for path in shard.glob(f"segments/*/{pattern}") if old in path.read_bytes()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes().replace(old, new))


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a command, which has an event loop of its own."""
    return await asyncio.to_thread(function, *arguments)


def lose_metadata(data: Path, uid: str) -> None:
    del uid
    shutil.rmtree(collections_folder(data) / "_meta")


def lose_current(data: Path, uid: str) -> None:
    (collections_folder(data) / uid / CURRENT_FILE).write_bytes(b"")


def lose_current_of_two_generations(data: Path, uid: str) -> None:
    folder = collections_folder(data) / uid
    (folder / CURRENT_FILE).unlink()
    (folder / "1").mkdir()
    (folder / "1" / CONFIG_FILE).write_text("{}")  # a copy for an index that a kill interrupted


def set_aside(data: Path, uid: str) -> None:
    quarantine = quarantine_path(collections_folder(data))
    quarantine.mkdir()
    (collections_folder(data) / uid).rename(quarantine / f"{uid}-20260101T000000Z")


@pytest.mark.parametrize(
    "damage", [lose_metadata, lose_current, lose_current_of_two_generations, set_aside]
)
async def test_repair_restores_what_check_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path, str], None]
) -> None:
    uid = await fill(tmp_path)
    damage(tmp_path, uid)
    before = contents(tmp_path)
    status, report = await in_thread(command, capsys, "check", "--data-dir", tmp_path)
    assert contents(tmp_path) == before
    assert (status, report["ok"]) == (1, False)
    (shop,) = [each for each in report["libraries"] if each["library"] == "shop"]
    assert (shop["state"], shop["lost"]) == ("repairable", [])
    assert shop["repairs"]
    status, report = await in_thread(command, capsys, "repair", "--data-dir", tmp_path)
    assert (status, report["ok"]) == (0, True), report
    async with running_catalog(settings_for(tmp_path)) as catalog:
        assert await catalog.nearest("shop", vector_at(10)) == ["near", "marked", "far"]
        assert await catalog.find("shop", where("tags.n", ">", 1)) == {"marked", "far"}
        assert await catalog.thumbnails("shop", "near") == [JPEG]
        assert (await catalog.library("other")).entry_count == 0


async def test_check_finds_damaged_entries_which_repair_deletes_only_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uid = await fill(tmp_path)
    shard = collections_folder(tmp_path) / uid / "0"
    replace(shard, "payload_storage/page_*.dat", TEXT.encode(), TEXT.lower().encode())
    replace(shard, "vector_storage-*/vectors/chunk_*.mmap", vector_at(90), vector_at(80))
    (thumbnail,) = (tmp_path / "catalog" / "thumbnails").rglob("*.jpg")
    thumbnail.write_bytes(b"")
    status, report = await in_thread(command, capsys, "check", "--data-dir", tmp_path)
    (shop,) = [each for each in report["libraries"] if each["library"] == "shop"]
    assert (status, shop["state"], shop["entry_count"]) == (1, "damaged", 3)
    assert set(shop["damaged_entries"]) == {"marked", "far"}
    assert shop["missing_thumbnail_count"] == 1
    thumbnail.write_bytes(JPEG)
    status, report = await in_thread(command, capsys, "repair", "--data-dir", tmp_path)
    assert status == 1
    status, report = await in_thread(
        command, capsys, "repair", "--data-dir", tmp_path, "--drop-damaged-entries"
    )
    assert status == 0, report
    async with running_catalog(settings_for(tmp_path)) as catalog:
        assert await catalog.find("shop") == {"near"}


async def test_check_says_what_can_not_be_repaired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uid = await fill(tmp_path)
    folder = collections_folder(tmp_path)
    shutil.rmtree(folder / uid / "0")
    (folder / uid / RECORD_FILE).unlink()
    assert await in_thread(main, ["check", "--data-dir", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "shop: damaged" in text
    assert "all entries of the library" in text
    assert "other: ok, 0 entries" in text


async def test_check_is_refused_while_a_catalog_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running_catalog(settings_for(tmp_path)):
        assert await in_thread(main, ["check", "--data-dir", str(tmp_path)]) == 2
    assert "stop the Catalog" in capsys.readouterr().err
