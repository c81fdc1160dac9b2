"""The same Catalog on both backends: every test of this folder runs on each."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.catalog.support import (
    Catalog,
    make_local_cluster,
    running_catalog,
    settings_for,
)

_numbers = itertools.count()


@pytest_asyncio.fixture(loop_scope="session", scope="session", params=["edge", "cluster"])
async def catalog(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Catalog]:
    folder = tmp_path_factory.mktemp("catalog")
    settings = settings_for(folder, BLOB_URL=(folder / "thumbnails").as_uri())
    storage = make_local_cluster() if request.param == "cluster" else None
    async with running_catalog(settings, storage) as running:
        running.thumbnail_folder = folder / "thumbnails"
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def library(catalog: Catalog) -> str:
    """The id of an empty library with one space."""
    library_id = f"library-{next(_numbers)}"
    await catalog.make_library(library_id)
    return library_id


@pytest.fixture
def new_id() -> str:
    """A library id that is not taken."""
    return f"new-{next(_numbers)}"
