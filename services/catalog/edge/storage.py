"""`Storage` on the embedded engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from imagesearch_services.catalog.edge.disk_space import has_space
from imagesearch_services.catalog.edge.group_commit import GroupCommit
from imagesearch_services.catalog.edge.indexer import Indexer
from imagesearch_services.catalog.edge.process import EngineProcess, collection_of
from imagesearch_services.catalog.edge.settings import EdgeSettings
from imagesearch_services.catalog.edge.suspects import CRASHES, Suspects
from imagesearch_services.catalog.filters import Filter
from imagesearch_services.catalog.model import FieldType, VectorSpace
from imagesearch_services.catalog.storage import (
    CollectionDamagedError,
    CollectionStats,
    Fields,
    FoundCollection,
    Payload,
    Point,
    Record,
    ScoredPoint,
    Search,
    damaged_error,
    merge_hits,
    storage_error,
    storage_full,
)
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.logs import logger

SEARCH_VECTORS = 16
"""Maximum vectors per search command, so that other commands can run during a long batch."""

MERGED_SEARCH_VECTORS = 32
"""Maximum vectors per command of a merged search. The first command finds most hits, whose lowest
similarity is the minimum of the next commands."""

HANG_S = 120.0
"""Age of an unanswered command, in seconds, above which the health check reports a hang."""


class EdgeStorage:
    """Collections in a local folder. An engine process that dies is restarted by the next call.

    A collection that the engine can't survive is refused as damaged (`edge/suspects`).
    """

    exclusive = True
    parallel_calls = 1

    def __init__(self, settings: EdgeSettings) -> None:
        self._settings = settings
        self.damaged_error: Callable[[str], ServiceError] = damaged_error
        self._engine: EngineProcess | None = None
        self._restarting = asyncio.Lock()
        self._write_locks: dict[str, asyncio.Lock] = {}
        self._indexer = Indexer(settings, self._command, self._write_lock)
        self._commits = GroupCommit(settings.folder)
        self._suspects = Suspects()
        self._closed = False

    async def start(self) -> None:
        self._engine = await EngineProcess.start(self._settings, self._suspects.record)

    async def check(self) -> None:
        self._commits.check()
        engine = await self._running()
        if engine.stuck:
            raise storage_error("the storage engine makes no progress")
        age_s = engine.oldest_command_s()
        if age_s is None:
            await engine.command("ping")
        elif age_s > HANG_S:
            raise storage_error(f"the storage engine has not answered for {HANG_S:.0f} s")

    async def check_space(self) -> None:
        if not has_space(self._settings.folder, self._settings.min_free_bytes):
            raise storage_full()

    async def close(self) -> None:
        self._closed = True
        await self._indexer.cancel_all()
        if self._engine is not None:
            await self._engine.close()
        self._commits.close()

    async def create_collection(
        self, name: str, spaces: Sequence[VectorSpace], indexes: Mapping[str, FieldType]
    ) -> None:
        await self._command("create_collection", name, tuple(spaces), dict(indexes))

    async def drop_collection(self, name: str) -> None:
        await self._indexer.cancel(name)
        await self._command("drop_collection", name)
        self._suspects.forget(name)
        self._write_locks.pop(name, None)
        self._commits.forget(name)

    async def read_identity(self) -> str:
        identity: str = await self._command("read_identity")
        return identity

    async def write_identity(self, installation_id: str) -> None:
        await self._command("write_identity", installation_id)

    async def survey(self) -> list[FoundCollection]:
        found: list[FoundCollection]
        found, unsettled = await self._command("survey")
        problems = {name: await self._settle(name) for name in unsettled}
        return [each._replace(problem=problems.get(each.name, each.problem)) for each in found]

    async def set_aside(self, name: str) -> str:
        place: str = await self._command("set_aside", name)
        self._suspects.forget(name)
        return place

    async def bring_back(self, name: str) -> bool:
        moved: bool = await self._command("bring_back", name)
        return moved

    async def write_record(self, name: str, record: Payload) -> None:
        await self._command("write_record", name, record)

    async def create_index(self, name: str, field: str, field_type: FieldType) -> None:
        async with self._write_lock(name):
            await self._command("create_index", name, field, field_type)
        await self._commit(name)

    async def drop_index(self, name: str, field: str) -> None:
        async with self._write_lock(name):
            await self._command("drop_index", name, field)
        await self._commit(name)

    async def stats(self, name: str) -> CollectionStats:
        stats: CollectionStats = await self._command("stats", name)
        self._indexer.schedule(name, stats)
        return stats

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        async with self._write_lock(name):
            self._indexer.record_writes(name, [point.uid for point in points])
            await self._command("upsert", name, points)
        await self._commit(name)
        self._indexer.schedule(name)

    async def set_payload(self, name: str, uid: bytes, payload: Payload) -> None:
        async with self._write_lock(name):
            self._indexer.record_writes(name, [uid])
            await self._command("set_payload", name, uid, payload)
        await self._commit(name)

    async def delete(self, name: str, uids: Sequence[bytes]) -> None:
        async with self._write_lock(name):
            self._indexer.record_writes(name, uids)
            await self._command("delete", name, uids)
        await self._commit(name)

    async def retrieve(
        self, name: str, uids: Sequence[bytes], fields: Fields, *, vectors: bool = False
    ) -> list[Record]:
        records: list[Record] = await self._command("retrieve", name, uids, fields, vectors)
        return records

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
        records: list[Record] = await self._command(
            "scroll", name, where, after, limit, fields, vectors
        )
        return records

    async def count(self, name: str, where: Filter | None) -> int:
        count: int = await self._command("count", name, where)
        return count

    async def search(self, name: str, search: Search) -> list[list[ScoredPoint]]:
        results: list[list[ScoredPoint]] = []
        for start in range(0, len(search.vectors), SEARCH_VECTORS):
            part = replace(search, vectors=search.vectors[start : start + SEARCH_VECTORS])
            results += await self._command("search", name, part)
        return results

    async def search_merged(self, name: str, search: Search, limit: int) -> list[ScoredPoint]:
        hits: list[ScoredPoint] = []
        for start in range(0, len(search.vectors), MERGED_SEARCH_VECTORS):
            part = replace(search, vectors=search.vectors[start : start + MERGED_SEARCH_VECTORS])
            if len(hits) == limit:
                # Points less similar than the last hit cannot enter the result.
                part = replace(part, min_similarity=hits[-1].similarity)
            hits = merge_hits(
                [*hits, *await self._command("search_merged", name, part, limit)], limit
            )
        return hits

    async def _commit(self, name: str) -> None:
        """Make the writes that the engine has answered durable, as the settings demand."""
        if self._settings.durable:
            await self._commits.commit(name)

    def _write_lock(self, name: str) -> asyncio.Lock:
        """Return the lock that every write to the collection holds."""
        return self._write_locks.setdefault(name, asyncio.Lock())

    async def _settle(self, name: str) -> str:
        """Remove the unused generations of a collection; return why it can't be opened, or ""."""
        for attempt in range(CRASHES):
            try:
                problem: str = await self._command("settle", name)
            except ServiceError as error:
                if error.reason is Reason.LIBRARY_DAMAGED:
                    return error.message
                if attempt + 1 == CRASHES:
                    raise
            else:
                return problem
        raise AssertionError

    async def _command(self, method: str, *arguments: Any) -> Any:
        engine = await self._running()
        name = collection_of(method, arguments)
        try:
            self._suspects.check(method, name)
            result = await engine.command(method, *arguments)
        except CollectionDamagedError as error:
            raise self.damaged_error(name) from error
        except ServiceError as error:
            if self._suspects.is_marked(name):  # by the end of the engine during this command
                raise self.damaged_error(name) from error
            raise
        self._suspects.succeeded(name)
        return result

    async def _running(self) -> EngineProcess:
        """Return the engine process, restarted if it died."""
        engine = self._engine
        if engine is None or self._closed:
            raise storage_error("the storage engine is stopped")
        if engine.alive:
            return engine
        async with self._restarting:
            if not self._engine or not self._engine.alive:
                logger().error("engine.died", pid=engine.pid)
                await self._indexer.cancel_all()
                self._engine = await EngineProcess.start(self._settings, self._suspects.record)
            return self._engine
