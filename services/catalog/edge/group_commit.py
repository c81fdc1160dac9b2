"""Group commit: makes the write-ahead logs of collections durable.

The engine appends every write to the log of its collection through a memory mapping, which
survives a killed process but not a power loss. The Catalog therefore syncs the log before it
acknowledges a write. It does so in threads of its own process, so that the engine process goes on
with other commands, searches above all. A collection has at most one sync in flight; the next one
covers every write that the engine answered before it began.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from imagesearch_services.catalog.disk import sync_file, sync_folder
from imagesearch_services.catalog.edge.files import read_generation
from imagesearch_services.catalog.failpoints import failpoint
from imagesearch_services.catalog.storage import storage_error
from imagesearch_services.common.logs import logger

THREADS = 4
"""Maximum collections that are synced at the same time."""

ATTEMPTS = 10
"""Maximum attempts of a sync: the engine may rename a log file or switch generations meanwhile."""

OPEN, CLOSED = "open-", "closed-"
"""Prefixes of the files of a log. A closed file is complete: it never changes again."""


class GroupCommit:
    """Syncs the logs of the collections in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._logs: dict[str, _Log] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sync")

    async def commit(self, name: str) -> None:
        """Return when every write to a collection that the engine has answered is durable.

        Raises:
            ServiceError: STORAGE_UNAVAILABLE; the collection accepts no write until a restart.
        """
        log = self._logs.setdefault(name, _Log(self._folder / name, self._threads))
        await log.commit()

    def check(self) -> None:
        """Raise STORAGE_UNAVAILABLE if the log of a collection could not be synced."""
        for log in self._logs.values():
            log.check()

    def forget(self, name: str) -> None:
        """Forget a removed collection."""
        self._logs.pop(name, None)

    def close(self) -> None:
        self._threads.shutdown()


class _Log:
    """The write-ahead log of a collection."""

    def __init__(self, collection: Path, threads: ThreadPoolExecutor) -> None:
        self._collection = collection
        self._threads = threads
        self._current: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self._error: OSError | None = None
        # What the last sync found; only one sync runs at a time.
        self._generation: int | None = None
        self._files: frozenset[str] = frozenset()

    async def commit(self) -> None:
        if self._next is None:
            self._next = asyncio.create_task(self._sync_after(self._current))
        await asyncio.shield(self._next)

    def check(self) -> None:
        if self._error is not None:
            raise storage_error("the disk of the storage engine fails; writes are refused")

    async def _sync_after(self, previous: asyncio.Task[None] | None) -> None:
        if previous is not None:
            await asyncio.wait([previous])
        self._current, self._next = self._next, None
        self.check()
        failpoint("commit.before_sync")
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._sync)
        except OSError as error:
            # The kernel forgets the pages that it could not write, so a later sync would succeed
            # without them, and a replay of the log would stop at the gap. Accept no more writes.
            self._error = error
            logger().error("engine.sync_failed", collection=self._collection.name, error=str(error))
            self.check()
        failpoint("commit.after_sync")

    def _sync(self) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._sync_generation(read_generation(self._collection))
            except FileNotFoundError:
                # A log file was renamed, or an indexed copy, which is durable, replaced the shard.
                if attempt == ATTEMPTS:
                    raise
            else:
                return

    def _sync_generation(self, generation: int) -> None:
        folder = self._collection / str(generation) / "wal"
        if generation != self._generation:
            # CURRENT must name this generation after a power loss, too.
            sync_folder(self._collection)
            self._generation, self._files = generation, frozenset()
        files = frozenset(
            path.name for path in folder.iterdir() if path.name.startswith((OPEN, CLOSED))
        )
        for name in files:
            if name.startswith(OPEN) or name not in self._files:
                sync_file(folder / name)
        if files != self._files:
            sync_folder(folder)
        self._files = files
