"""The embedded backend: Qdrant Edge in a process of ours, its indexes built in the background."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from imagesearch_services.catalog.filters import Filter
from imagesearch_services.catalog.framing import HEADER
from imagesearch_services.catalog.model import FieldType, VectorSpace
from imagesearch_services.catalog.storage import (
    CollectionStats,
    Fields,
    FolderLockedError,
    Payload,
    Point,
    Record,
    Scored,
    Search,
    merged,
    storage_error,
)
from imagesearch_services.common.logs import logger

VECTORS_A_TURN = 16
"""Vectors searched in one command, so that long batches leave gaps for others."""

MERGED_A_TURN = 32
"""The same where their hits become one list: the first bring most of it."""

CATCH_UP_POINTS = 500
"""Points brought to a new index in one command, for the same reason."""

LOCK_WAIT_S = 10.0
"""How long to wait for the owner before us to let go of the folder."""

CLOSE_S = 20.0
"""How long the engine may take to flush and close."""

REST_S = 60.0
"""How long to leave a library alone whose index could not be built, or brought nothing."""

STUCK_S = 120.0
"""A command that runs longer than this counts as hung in the health check."""


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """How the embedded engine runs."""

    folder: Path
    """Holds the collections; locked."""
    min_free_bytes: int
    """Space that must be left on the disk for anything to be written."""
    indexing_threshold: int
    """Unindexed vectors of a library that start the building of its index; 0: never."""
    hnsw_m: int
    """Edges of a node of the graph."""
    hnsw_ef_construct: int
    """Breadth of search while the graph is built."""
    hnsw_ef: int
    """Breadth of search in queries."""
    indexing_threads: int
    """Threads that build."""
    segments: int
    """Graphs that a library is spread over; searched in parallel, one gives the best recall."""


class EdgeStorage:
    """`Storage` on collections in a local folder."""

    exclusive = True
    parallel_calls = 1

    def __init__(self, settings: EdgeSettings) -> None:
        self._settings = settings
        self._engine: _EngineProcess | None = None
        self._restarting = asyncio.Lock()
        self._indexer = _Indexer(self, settings)
        self._write_locks: dict[str, asyncio.Lock] = {}
        self._closed = False

    async def start(self) -> None:
        self._engine = await self._spawn()

    async def check(self) -> None:
        engine = await self._running()
        oldest_s = engine.oldest_command_s()
        if oldest_s is None:
            await engine.command("ping")
        elif oldest_s > STUCK_S:
            raise storage_error("the storage engine hangs")

    async def close(self) -> None:
        self._closed = True
        await self._indexer.close()
        if self._engine is not None:
            await self._engine.close()

    async def create_collection(
        self, name: str, spaces: Sequence[VectorSpace], indexes: Mapping[str, FieldType]
    ) -> None:
        await self._command("create_collection", name, tuple(spaces), dict(indexes))

    async def drop_collection(self, name: str) -> None:
        await self._indexer.forget(name)
        await self._command("drop_collection", name)
        self._write_locks.pop(name, None)

    async def keep_only(self, names: frozenset[str]) -> None:
        await self._command("keep_only", names)

    async def create_index(self, name: str, field: str, field_type: FieldType) -> None:
        async with self.write_lock(name):
            await self._command("create_index", name, field, field_type)

    async def stats(self, name: str) -> CollectionStats:
        stats: CollectionStats = await self._command("stats", name)
        self._indexer.consider(name, stats)
        return stats

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        async with self.write_lock(name):
            self._indexer.touch(name, [point.uid for point in points])
            await self._command("upsert", name, points)
        self._indexer.wrote(name)

    async def set_payload(self, name: str, uid: bytes, payload: Payload) -> None:
        async with self.write_lock(name):
            self._indexer.touch(name, [uid])
            await self._command("set_payload", name, uid, payload)

    async def delete(self, name: str, uids: Sequence[bytes]) -> None:
        async with self.write_lock(name):
            self._indexer.touch(name, uids)
            await self._command("delete", name, uids)

    async def retrieve(
        self, name: str, uids: Sequence[bytes], fields: Fields, *, vectors: bool = False
    ) -> list[Record]:
        found: list[Record] = await self._command("retrieve", name, uids, fields, vectors)
        return found

    async def scroll(
        self,
        name: str,
        where: Filter | None,
        after: bytes | None,
        limit: int,
        fields: Fields,
        *,
        vectors: bool = False,
    ) -> list[Record]:
        found: list[Record] = await self._command(
            "scroll", name, where, after, limit, fields, vectors
        )
        return found

    async def count(self, name: str, where: Filter | None) -> int:
        count: int = await self._command("count", name, where)
        return count

    async def search(self, name: str, search: Search) -> list[list[Scored]]:
        results: list[list[Scored]] = []
        for start in range(0, len(search.vectors), VECTORS_A_TURN):
            turn = search.vectors[start : start + VECTORS_A_TURN]
            results += await self._command("search", name, replace(search, vectors=turn))
        return results

    async def search_merged(self, name: str, search: Search, limit: int) -> list[Scored]:
        found: list[Scored] = []
        for start in range(0, len(search.vectors), MERGED_A_TURN):
            turn = replace(search, vectors=search.vectors[start : start + MERGED_A_TURN])
            if len(found) == limit:
                # What is further away than all of these has no say any more.
                turn = replace(turn, min_similarity=found[-1].similarity)
            found = merged(
                [*found, *await self._command("search_merged", name, turn, limit)], limit
            )
        return found

    def write_lock(self, name: str) -> asyncio.Lock:
        """Return the lock under which nothing is written to the collection."""
        return self._write_locks.setdefault(name, asyncio.Lock())

    async def command(self, method: str, *arguments: Any) -> Any:
        """Send a command to the engine; for the indexer."""
        return await self._command(method, *arguments)

    async def _command(self, method: str, *arguments: Any) -> Any:
        engine = await self._running()
        return await engine.command(method, *arguments)

    async def _running(self) -> _EngineProcess:
        """Return the engine; one that died is started anew."""
        engine = self._engine
        if engine is None or self._closed:
            raise storage_error("the storage engine is stopped")
        if engine.alive:
            return engine
        async with self._restarting:
            if not self._engine or not self._engine.alive:
                logger().error("the engine's process died, starting it anew")
                await self._indexer.forget_all()
                self._engine = await self._spawn()
            return self._engine

    async def _spawn(self) -> _EngineProcess:
        engine = await _EngineProcess.start()
        try:
            await engine.command(
                "open",
                str(self._settings.folder),
                self._settings.hnsw_ef,
                self._settings.min_free_bytes,
                LOCK_WAIT_S,
            )
        except BaseException:
            await engine.close()
            raise
        return engine


class _EngineProcess:
    """The process of `edge_engine` and the conversation with it: commands in, answers out."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, tuple[asyncio.Future[Any], float]] = {}
        self._sent = 0
        self.alive = True
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls) -> _EngineProcess:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "imagesearch_services.catalog.edge_engine",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 20)
        return cls(process, reader, writer)

    async def command(self, method: str, *arguments: Any) -> Any:
        """Run a command; the answer is awaited even where the caller goes away meanwhile."""
        if not self.alive:
            raise storage_error()
        self._sent += 1
        body = pickle.dumps((self._sent, method, arguments), pickle.HIGHEST_PROTOCOL)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting[self._sent] = answer, loop.time()
        # Both without an await between, so that commands are run in the order they are sent.
        self._writer.write(HEADER.pack(len(body)))
        self._writer.write(body)
        return await answer

    def oldest_command_s(self) -> float | None:
        """Return how long the oldest unanswered command has waited, None where there is none."""
        if not self._waiting:
            return None
        now = asyncio.get_running_loop().time()
        return now - min(since for _, since in self._waiting.values())

    async def close(self) -> None:
        """Let the engine finish and flush; kill it where that takes too long."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._process.wait()
        except TimeoutError:
            # Nothing is lost: what was acknowledged is in the write-ahead log.
            self._process.kill()
            await self._process.wait()
        await self._listening

    async def _listen(self) -> None:
        try:
            while True:
                header = await self._reader.readexactly(HEADER.size)
                body = await self._reader.readexactly(HEADER.unpack(header)[0])
                number, well, value = pickle.loads(body)  # noqa: S301  # from our own child
                answer, _ = self._waiting.pop(number)
                if answer.done():
                    continue
                if well:
                    answer.set_result(value)
                else:
                    answer.set_exception(_error(*value))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.alive = False
            self._writer.close()
            for answer, _ in self._waiting.values():
                if not answer.done():
                    answer.set_exception(storage_error())
            self._waiting.clear()
            await self._process.wait()


def _error(kind: str, text: str) -> Exception:
    if kind == "locked":
        return FolderLockedError(f"{text} is in use by another Catalog")
    logger().error("the storage engine failed", error=text)
    if kind == "full":
        return storage_error("no space is left for the storage engine")
    return storage_error("the storage engine failed")


class _Indexer:
    """Builds indexes in copies of shards, one at a time, while the shards go on.

    What is written meanwhile is noted and brought to the copy before it takes over.
    """

    def __init__(self, storage: EdgeStorage, settings: EdgeSettings) -> None:
        self._storage = storage
        self._settings = settings
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._touched: dict[str, set[bytes]] = {}
        self._builder = asyncio.Semaphore(1)
        self._resting_until: dict[str, float] = {}

    def touch(self, name: str, uids: Sequence[bytes]) -> None:
        """Note what is about to be written."""
        touched = self._touched.get(name)
        if touched is not None:
            touched.update(uids)

    def wrote(self, name: str) -> None:
        """Look, soon, at whether there is enough to index."""
        if self._settings.indexing_threshold and self._free(name):
            self._tasks[name] = asyncio.create_task(self._look(name))

    def consider(self, name: str, stats: CollectionStats) -> None:
        """Begin to build if enough vectors are unindexed."""
        if self._due(stats) and self._free(name):
            self._tasks[name] = asyncio.create_task(self._look(name))

    async def forget(self, name: str) -> None:
        """Stop building for a collection that goes away."""
        self._resting_until.pop(name, None)
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def forget_all(self) -> None:
        for name in list(self._tasks):
            await self.forget(name)

    async def close(self) -> None:
        await self.forget_all()

    def _free(self, name: str) -> bool:
        now = asyncio.get_running_loop().time()
        return name not in self._tasks and now >= self._resting_until.get(name, now)

    def _rest(self, name: str) -> None:
        self._resting_until[name] = asyncio.get_running_loop().time() + REST_S

    def _due(self, stats: CollectionStats) -> bool:
        # Copies cost as much as the library is large: a tenth of it is worth one.
        threshold = self._settings.indexing_threshold
        return 0 < threshold <= stats.unindexed_vector_count and (
            stats.unindexed_vector_count * 10 >= stats.point_count
        )

    async def _look(self, name: str) -> None:
        try:
            stats = await self._storage.command("stats", name)
            while self._due(stats):
                async with self._builder:
                    await self._build(name)
                before, stats = stats, await self._storage.command("stats", name)
                if stats.unindexed_vector_count >= before.unindexed_vector_count:
                    # Where entries have no sparse vector, dense ones count as unindexed for ever.
                    self._rest(name)
                    break
        except Exception as error:  # noqa: BLE001  # searches go on without the index
            self._rest(name)
            logger().warning("building an index failed", collection=name, error=str(error))
        finally:
            if self._tasks.get(name) is asyncio.current_task():
                del self._tasks[name]

    async def _build(self, name: str) -> None:
        started = asyncio.get_running_loop().time()
        storage = self._storage
        try:
            async with storage.write_lock(name):
                shard, copy = await storage.command("flush", name)
                await asyncio.to_thread(_copy_folder, Path(shard), Path(copy))
                self._touched[name] = set()
            await self._run_builder(copy)
            await storage.command("open_copy", name)
            while len(self._touched[name]) > CATCH_UP_POINTS:
                await self._catch_up(name)
            async with storage.write_lock(name):
                await self._catch_up(name)
                await storage.command("switch", name)
        except BaseException:
            with contextlib.suppress(Exception):
                await storage.command("drop_copy", name)
            raise
        finally:
            self._touched.pop(name, None)
        logger().info(
            "index built",
            collection=name,
            duration_s=round(asyncio.get_running_loop().time() - started, 1),
        )

    async def _catch_up(self, name: str) -> None:
        uids = list(self._touched[name])
        self._touched[name] = set()
        for start in range(0, len(uids), CATCH_UP_POINTS):
            await self._storage.command("catch_up", name, uids[start : start + CATCH_UP_POINTS])

    async def _run_builder(self, folder: str) -> None:
        settings = self._settings
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "imagesearch_services.catalog.edge_build",
            folder,
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
            raise RuntimeError(f"the builder ended with status {status}")


def _copy_folder(source: Path, target: Path) -> None:
    # With its log, flushed as it is: that holds the number of the last write, by which the engine
    # tells new ones from those that it has.
    shutil.copytree(source, target, copy_function=_copy_sparse)


def _copy_sparse(source: str, target: str) -> None:
    """Copy a file without filling its holes: the engine's files are mostly reserved space."""
    with open(source, "rb") as reader, open(target, "wb") as writer:  # noqa: PTH123  # by copytree
        size = os.fstat(reader.fileno()).st_size
        os.truncate(writer.fileno(), size)
        end = 0
        while end < size:
            try:
                start = os.lseek(reader.fileno(), end, os.SEEK_DATA)
            except OSError:  # no data after here
                break
            end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            os.lseek(reader.fileno(), start, os.SEEK_SET)
            os.lseek(writer.fileno(), start, os.SEEK_SET)
            left = end - start
            while left:
                left -= os.sendfile(writer.fileno(), reader.fileno(), None, left)
