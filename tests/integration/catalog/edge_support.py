"""Helpers for tests of the embedded engine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.catalog.backends import open_storage
from imagesearch_services.catalog.edge.settings import EdgeSettings
from imagesearch_services.catalog.edge.storage import EdgeStorage
from tests.contract.catalog.support import (
    SPACE,
    Catalog,
    random_units,
    running_catalog,
    settings_for,
)
from tests.waiting import until


def collections_folder(folder: Path) -> Path:
    return folder / "catalog" / "libraries"


def engine_pid(storage: EdgeStorage) -> int:
    assert storage._engine is not None
    return storage._engine.pid


def pending_methods(storage: EdgeStorage) -> list[str]:
    return [] if storage._engine is None else storage._engine.pending_methods()


def edge_settings(folder: Path) -> EdgeSettings:
    storage = open_storage(settings_for(folder))
    assert isinstance(storage, EdgeStorage)
    return storage._settings


@contextlib.asynccontextmanager
async def edge_catalog(folder: Path, **changes: str) -> AsyncIterator[tuple[Catalog, EdgeStorage]]:
    settings = settings_for(folder, **changes)
    storage = open_storage(settings)
    assert isinstance(storage, EdgeStorage)
    async with running_catalog(settings, storage) as catalog:
        yield catalog, storage


async def add_random_entries(
    catalog: Catalog, library_id: str, count: int, start: int = 0
) -> list[bytes]:
    vectors = random_units(count, 64, seed=start)
    for first in range(0, count, 500):
        entries = []
        for n in range(first, min(first + 500, count)):
            entry = pb.Entry(image_id=f"image {start + n}")
            entry.vectors.add(space=SPACE, values=vectors[n])
            entries.append(entry)
        await catalog.store(library_id, *entries)
    return vectors


async def index_built(storage: EdgeStorage, uid: str, timeout_s: float = 120) -> None:
    """Wait until no index build of a collection is in progress."""
    await until(lambda: uid not in storage._indexer._tasks, timeout_s=timeout_s)


async def index_started(storage: EdgeStorage, uid: str) -> None:
    """Wait until an index build of a collection has copied the shard."""
    await until(lambda: uid in storage._indexer._written_uids)
