"""Fixtures of a Catalog on each backend: every test of this folder runs on both."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.contract.catalog.support import (
    Catalog,
    make_local_cluster,
    running_catalog,
    settings_for,
)
from tests.s3_server import S3Server, running_s3

_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session", scope="session", params=["edge", "cluster"])
async def catalog(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, s3: S3Server
) -> AsyncIterator[Catalog]:
    """Yield a Catalog: first on the embedded engine and a folder, then on a server and a bucket."""
    folder = tmp_path_factory.mktemp("catalog")
    if request.param == "edge":
        settings, storage = settings_for(folder), None
    else:
        settings, storage = settings_for(folder, **s3.settings()), make_local_cluster()
    async with running_catalog(settings, storage) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def library(catalog: Catalog) -> str:
    """Return the id of an empty library with one vector space."""
    library_id = f"library-{next(_numbers)}"
    await catalog.make_library(library_id)
    return library_id


@pytest.fixture
def new_id() -> str:
    """Return an unused library id."""
    return f"new-{next(_numbers)}"
