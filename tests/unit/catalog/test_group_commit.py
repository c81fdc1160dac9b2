"""Group commit: what is synced, how often, and what a failed sync means."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagesearch_services.catalog.edge import group_commit
from imagesearch_services.catalog.edge.group_commit import GroupCommit
from imagesearch_services.common.errors import ServiceError


class Disk:
    """Records what is synced; a sync may be held up or fail."""

    def __init__(self) -> None:
        self.synced: list[str] = []
        self.released = threading.Event()
        self.released.set()
        self.error: OSError | None = None

    def sync(self, path: Path) -> None:
        assert self.released.wait(30)
        if not path.exists():
            raise FileNotFoundError(path)
        if self.error is not None:
            raise self.error
        self.synced.append(path.name)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(group_commit, "sync_file", disk.sync)
    monkeypatch.setattr(group_commit, "sync_folder", disk.sync)
    return disk


@pytest.fixture
def commits(tmp_path: Path) -> Iterator[GroupCommit]:
    commits = GroupCommit(tmp_path)
    yield commits
    commits.close()


def make_log(folder: Path, generation: int, *names: str) -> Path:
    wal = folder / "shop" / str(generation) / "wal"
    wal.mkdir(parents=True)
    for name in names:
        (wal / name).touch()
    (folder / "shop" / "CURRENT").write_text(str(generation))
    return wal


async def test_writes_during_a_sync_share_the_next_one(
    tmp_path: Path, disk: Disk, commits: GroupCommit
) -> None:
    make_log(tmp_path, 0, "open-1")
    disk.released.clear()
    first = asyncio.create_task(commits.commit("shop"))
    await asyncio.sleep(0)  # the first sync has begun
    await asyncio.sleep(0)
    others = [asyncio.create_task(commits.commit("shop")) for _ in range(20)]
    await asyncio.sleep(0)
    disk.released.set()
    await asyncio.gather(first, *others)
    assert disk.synced.count("open-1") == 2


async def test_closed_files_and_folders_are_synced_once(
    tmp_path: Path, disk: Disk, commits: GroupCommit
) -> None:
    wal = make_log(tmp_path, 0, "closed-0", "open-2", "first-index")
    for _ in range(3):
        await commits.commit("shop")
    assert sorted(disk.synced) == ["closed-0", "open-2", "open-2", "open-2", "shop", "wal"]
    disk.synced.clear()
    (wal / "open-2").rename(wal / "closed-7")
    (wal / "open-3").touch()
    await commits.commit("shop")
    assert sorted(disk.synced) == ["closed-7", "open-3", "wal"]


async def test_a_new_generation_is_acknowledged_only_after_its_name_is_durable(
    tmp_path: Path, disk: Disk, commits: GroupCommit
) -> None:
    make_log(tmp_path, 0, "open-1")
    await commits.commit("shop")
    disk.synced.clear()
    make_log(tmp_path, 1, "open-1")
    await commits.commit("shop")
    assert disk.synced[0] == "shop"


async def test_after_a_failed_sync_no_write_is_acknowledged(
    tmp_path: Path, disk: Disk, commits: GroupCommit
) -> None:
    make_log(tmp_path, 0, "open-1")
    disk.error = OSError(5, "Input/output error")
    with pytest.raises(ServiceError, match="writes are refused"):
        await commits.commit("shop")
    disk.error = None  # the kernel reports an error once, and has dropped the pages
    with pytest.raises(ServiceError, match="writes are refused"):
        await commits.commit("shop")
    with pytest.raises(ServiceError, match="writes are refused"):
        commits.check()
