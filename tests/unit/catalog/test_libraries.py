"""Pages of libraries, whose counts are read with bounded concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from imagesearch_services.catalog.filters import Match
from imagesearch_services.catalog.library.libraries import Libraries
from imagesearch_services.catalog.library.records import LIBRARIES, READY
from imagesearch_services.catalog.model import Library, VectorSpace
from imagesearch_services.catalog.paging import PageTokens
from imagesearch_services.catalog.payloads import METADATA, library_to_payload
from imagesearch_services.catalog.storage import (
    CollectionStats,
    FoundCollection,
    Record,
    Storage,
    storage_error,
)
from imagesearch_services.common.errors import Reason, ServiceError

LIBRARY_COUNT = 40


def library(number: int) -> Library:
    return Library(
        library_id=f"shop-{number:02}",
        uid=f"{number:032x}",
        type=1,
        spaces=(VectorSpace("copy@1", 4, False),),
    )


class SlowStorage:
    """A storage of empty libraries that records the maximum number of concurrent `stats` calls."""

    exclusive = True
    parallel_calls = 7

    def __init__(self) -> None:
        self.running = 0
        self.max_running = 0
        self.before_stats: Callable[[str], None] = lambda _: None

    async def create_collection(self, *_: Any) -> None: ...

    async def create_index(self, *_: Any) -> None: ...

    async def survey(self) -> list[FoundCollection]:
        return [
            FoundCollection(library(number).uid, "", library_to_payload(library(number), READY))
            for number in range(LIBRARY_COUNT)
        ]

    async def scroll(self, name: str, where: Match, *_: Any) -> list[Record]:
        assert name == METADATA
        if where != LIBRARIES:
            return []
        return [
            Record(bytes(16), library_to_payload(library(number), READY), {})
            for number in range(LIBRARY_COUNT)
        ]

    async def stats(self, name: str) -> CollectionStats:
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            await asyncio.sleep(0.01)
            self.before_stats(name)
            return CollectionStats(point_count=int(name, 16), unindexed_vector_count=0)
        finally:
            self.running -= 1


async def key() -> bytes:
    return b"key"


async def opened(storage: SlowStorage) -> Libraries:
    libraries = Libraries(
        cast("Storage", storage), cast("Any", None), cast("Any", None), tokens=PageTokens(key)
    )
    await libraries.start()
    return libraries


async def test_counts_of_a_page_are_read_concurrently_and_in_order() -> None:
    storage = SlowStorage()
    page, token = await (await opened(storage)).list_page(LIBRARY_COUNT - 1, "")
    assert [stats.entry_count for _, stats in page] == list(range(LIBRARY_COUNT - 1))
    assert [library.library_id for library, _ in page] == sorted(
        library.library_id for library, _ in page
    )
    assert token
    assert storage.max_running == storage.parallel_calls


async def test_a_library_deleted_while_its_page_is_read_is_omitted() -> None:
    storage = SlowStorage()
    libraries = await opened(storage)

    def delete_third(name: str) -> None:
        if int(name, 16) == 3:
            assert libraries._records._cache is not None
            libraries._records._cache.pop("shop-03", None)
            raise storage_error()

    storage.before_stats = delete_third
    page, _ = await libraries.list_page(5, "")
    assert [library.library_id for library, _ in page] == [
        "shop-00",
        "shop-01",
        "shop-02",
        "shop-04",
    ]


async def test_an_engine_error_fails_the_page() -> None:
    storage = SlowStorage()

    def fail(_: str) -> None:
        raise storage_error()

    storage.before_stats = fail
    libraries = await opened(storage)
    with pytest.raises(ServiceError) as caught:
        await libraries.list_page(0, "")
    assert caught.value.reason is Reason.STORAGE_UNAVAILABLE
    assert storage.running == 0
