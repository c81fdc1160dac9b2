"""Builds HNSW indexes in the background, one at a time, while the collections stay in use."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from imagesearch_services.catalog.disk import sync_tree
from imagesearch_services.catalog.edge.files import copy_folder
from imagesearch_services.catalog.edge.settings import EdgeSettings
from imagesearch_services.catalog.failpoints import failpoint
from imagesearch_services.catalog.storage import CollectionStats
from imagesearch_services.common.logs import logger

CATCH_UP_POINTS = 500
"""Maximum points transferred to a copy per command, so that other commands can run in between."""

PAUSE_S = 60.0
"""Pause of a collection after a build that failed or indexed nothing, in seconds."""

MIN_UNINDEXED_SHARE = 0.1
"""Minimum share of unindexed vectors, relative to the points of the collection, that starts a
build: the cost of a build grows with the collection."""


class Indexer:
    """Builds the index of a collection when enough of its vectors are unindexed.

    A build works on a copy of the shard. Points written meanwhile are recorded and transferred to
    the copy before it replaces the shard.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        command: Callable[..., Awaitable[Any]],
        write_lock: Callable[[str], asyncio.Lock],
    ) -> None:
        """Create an indexer without tasks.

        Args:
            settings: settings of the engine.
            command: sends a command to the engine.
            write_lock: returns the lock that writes to a collection hold.
        """
        self._settings = settings
        self._command = command
        self._write_lock = write_lock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._written_uids: dict[str, set[bytes]] = {}
        """Points written since the shard was copied, by collection with a build in progress."""
        self._build_slot = asyncio.Semaphore(1)
        self._paused_until_s: dict[str, float] = {}

    def record_writes(self, name: str, uids: Iterable[bytes]) -> None:
        """Record points that are about to be written."""
        written = self._written_uids.get(name)
        if written is not None:
            written.update(uids)

    def schedule(self, name: str, stats: CollectionStats | None = None) -> None:
        """Start a background task that builds the index if a build is due.

        If `stats` are given and show that no build is due, no task is started.
        """
        now_s = asyncio.get_running_loop().time()
        if name in self._tasks or now_s < self._paused_until_s.get(name, now_s):
            return
        if self._settings.indexing_threshold and (stats is None or self._is_due(stats)):
            self._tasks[name] = asyncio.create_task(self._run(name))

    async def cancel(self, name: str) -> None:
        """Cancel the build of a collection, if there is one."""
        self._paused_until_s.pop(name, None)
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def cancel_all(self) -> None:
        for name in list(self._tasks):
            await self.cancel(name)

    def _pause(self, name: str) -> None:
        self._paused_until_s[name] = asyncio.get_running_loop().time() + PAUSE_S

    def _is_due(self, stats: CollectionStats) -> bool:
        unindexed = stats.unindexed_vector_count
        return unindexed >= max(
            self._settings.indexing_threshold, MIN_UNINDEXED_SHARE * stats.point_count
        )

    async def _run(self, name: str) -> None:
        try:
            stats = await self._command("stats", name)
            while self._is_due(stats):
                async with self._build_slot:
                    await self._build(name)
                before, stats = stats, await self._command("stats", name)
                if stats.unindexed_vector_count >= before.unindexed_vector_count:
                    # Entries without a sparse vector make dense vectors count as unindexed. A build
                    # does not change this.
                    self._pause(name)
                    break
        except Exception as error:  # noqa: BLE001  # searches work without the index
            self._pause(name)
            logger().warning("index.build_failed", collection=name, error=str(error))
        finally:
            if self._tasks.get(name) is asyncio.current_task():
                del self._tasks[name]

    async def _build(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        try:
            async with self._write_lock(name):
                shard, copy = await self._command("prepare_copy", name)
                # The copy includes the flushed write-ahead log, which holds the number of the last
                # write: the engine needs it to recognize later writes.
                await asyncio.to_thread(copy_folder, shard, copy)
                self._written_uids[name] = set()
            failpoint("index.after_copy")
            await _run_builder(copy, self._settings)
            failpoint("index.after_build")
            if self._settings.durable:
                # Here, in a thread, so that little is left to sync when the engine switches.
                await asyncio.to_thread(sync_tree, copy)
            failpoint("index.after_copy_sync")
            await self._command("open_copy", name)
            while len(self._written_uids[name]) > CATCH_UP_POINTS:
                await self._catch_up(name)
            async with self._write_lock(name):
                await self._catch_up(name)
                failpoint("index.after_catch_up")
                await self._command("switch_to_copy", name)
        except BaseException:
            with contextlib.suppress(Exception):
                await self._command("drop_copy", name)
            raise
        finally:
            self._written_uids.pop(name, None)
        duration_s = round(loop.time() - started_s, 1)
        logger().info("index.built", collection=name, duration_s=duration_s)

    async def _catch_up(self, name: str) -> None:
        uids = list(self._written_uids[name])
        self._written_uids[name] = set()
        for start in range(0, len(uids), CATCH_UP_POINTS):
            await self._command("catch_up", name, uids[start : start + CATCH_UP_POINTS])


async def _run_builder(folder: Path, settings: EdgeSettings) -> None:
    """Build the index of the shard in a folder, in a process that a cancellation kills."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "imagesearch_services.catalog.edge.builder",
        str(folder),
        f"--m={settings.hnsw_m}",
        f"--ef-construct={settings.hnsw_ef_construct}",
        f"--threads={settings.indexing_threads}",
        f"--segments={settings.segments}",
        stdin=asyncio.subprocess.DEVNULL,
    )
    try:
        status = await process.wait()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if status:
        raise RuntimeError(f"the index builder ended with status {status}")
