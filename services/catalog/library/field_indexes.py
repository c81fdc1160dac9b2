"""Payload indexes of tags and attributes, which the first filter on a field creates.

Filters are exact with and without an index. On 100,000 entries a filter takes 1 ms with an index
and 0.3 s without; creating the index takes about 1 s, during which the embedded engine runs nothing
else. So the first filter is answered without the index, which is created afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from imagesearch_services.catalog.failpoints import failpoint
from imagesearch_services.catalog.filter_binding import fields_of
from imagesearch_services.catalog.filters import Bound
from imagesearch_services.catalog.library.records import READY, LibraryRecords
from imagesearch_services.catalog.model import FieldType, Library
from imagesearch_services.catalog.storage import Storage
from imagesearch_services.common.logs import logger

MAX_INDEXED_FIELDS = 32
"""Maximum tags and attributes with an index per library. Each index takes up to 15 memory maps per
segment, of which Linux allows a process 65,530; other fields are filtered without an index."""

RETRY_S = 60.0
"""Time after a failed creation before the next one of the library, in seconds."""


class FieldIndexes:
    """Creates the indexes of all libraries in the background, one at a time."""

    def __init__(
        self,
        storage: Storage,
        records: LibraryRecords,
        write_lock: Callable[[str], AbstractAsyncContextManager[None]],
    ) -> None:
        self._storage = storage
        self._records = records
        self._write_lock = write_lock
        self._slot = asyncio.Semaphore(1)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._paused_until_s: dict[str, float] = {}

    def request(self, library: Library, bound: Bound) -> None:
        """Create the missing indexes of the fields that a filter names, in the background."""
        fields = fields_of(bound) & library.optional_fields().keys() - library.indexed_fields
        now_s = asyncio.get_running_loop().time()
        if (
            fields
            and library.uid not in self._tasks
            and len(library.indexed_fields) < MAX_INDEXED_FIELDS
            and now_s >= self._paused_until_s.get(library.uid, 0.0)
        ):
            self._tasks[library.uid] = asyncio.create_task(self._run(library, sorted(fields)))

    async def close(self) -> None:
        """Stop before the next index, and wait for the one in progress."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, library: Library, fields: list[str]) -> None:
        try:
            for field in fields:
                async with self._slot, self._write_lock(library.library_id):
                    await self._create(library, field)
        except Exception as error:  # noqa: BLE001  # filters are exact without the index
            self._paused_until_s[library.uid] = asyncio.get_running_loop().time() + RETRY_S
            logger().warning("field_index.failed", library=library.library_id, error=str(error))
        finally:
            self._tasks.pop(library.uid, None)

    async def _create(self, library: Library, field: str) -> None:
        current = await self._records.find(library.library_id)
        if current is None or current.uid != library.uid:
            return
        field_type: FieldType | None = current.optional_fields().get(field)
        if field_type is None or len(current.indexed_fields) >= MAX_INDEXED_FIELDS:
            return
        await self._storage.create_index(current.uid, field, field_type)
        failpoint("fields.after_index")
        indexed = replace(current, indexed_fields=current.indexed_fields | {field})
        await self._records.write(indexed, READY)
        logger().info("field_index.created", library=library.library_id, field=field)
