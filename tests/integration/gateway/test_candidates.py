"""Candidates of an element search, from a real Catalog."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.common.types import LibraryType, ModelVersion, SparseVector, Vector
from imagesearch_services.gateway.clients import catalog as catalog_client
from imagesearch_services.gateway.clients.catalog import CatalogClient
from imagesearch_services.gateway.model import LibraryFields, NewLibrary, ServedModel
from imagesearch_services.gateway.ports import CandidatesQuery
from tests.contract.catalog.support import Catalog, random_units, running_catalog, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNT = 40
DIMENSIONS = 32
VECTORS = random_units(COUNT, DIMENSIONS, seed=6)
MODELS = [
    ServedModel(ModelVersion("words", "words", "1"), 0, frozenset({LibraryType.ELEMENT})),
    ServedModel(
        ModelVersion("element", "dense", "2"), DIMENSIONS, frozenset({LibraryType.ELEMENT})
    ),
]


def features(number: int) -> bytes:
    return bytes([number]) * 300


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def catalog(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Catalog]:
    """A Catalog with a library of elements that share a visual word."""
    folder: Path = tmp_path_factory.mktemp("catalog")
    async with running_catalog(settings_for(folder)) as running:
        library = NewLibrary(
            library_id="logos", type=LibraryType.ELEMENT, fields=LibraryFields(), models=MODELS
        )
        await CatalogClient(running.channel, 10).create_library(library, "")
        for number, vector in enumerate(VECTORS):
            words = {"space": "words@1", "indices": [7], "values": [1.0 + number]}
            entry = pb.Entry(
                image_id=f"{number}",
                vectors=[{"space": "dense@2", "values": vector}],
                sparse_vectors=[words],
                features=features(number),
            )
            await running.store("logos", entry)
        yield running


@pytest.fixture
def client(catalog: Catalog) -> CatalogClient:
    return CatalogClient(catalog.channel, 10)


def query(
    descriptors: SparseVector | list[Vector], limit: int, limit_per_vector: int
) -> CandidatesQuery:
    return CandidatesQuery(
        library_id="logos",
        library_uid="",
        descriptors=descriptors,
        filter=None,
        limit=limit,
        limit_per_vector=limit_per_vector,
    )


async def test_an_element_library_stores_compact_vectors(catalog: Catalog) -> None:
    assert [space.compact for space in (await catalog.library("logos")).spaces] == [True, True]


async def test_each_window_contributes_a_limited_number_of_candidates(
    client: CatalogClient,
) -> None:
    words = SparseVector("words@1", [7], [1.0])
    assert len(await client.candidates(query(words, limit=30, limit_per_vector=3))) == 30
    windows = [Vector("dense@2", vector) for vector in VECTORS[:2]]
    assert len(await client.candidates(query(windows[:1], limit=30, limit_per_vector=3))) == 3
    assert 3 < len(await client.candidates(query(windows, limit=30, limit_per_vector=3))) <= 6


@pytest.mark.parametrize("max_entries", [1000, 7])
async def test_features_are_returned_in_request_order(
    client: CatalogClient, monkeypatch: pytest.MonkeyPatch, max_entries: int
) -> None:
    monkeypatch.setattr(catalog_client, "MAX_ENTRIES", max_entries)
    words = SparseVector("words@1", [7], [1.0])
    best = await client.candidates(query(words, limit=30, limit_per_vector=3))
    found = await client.get_features("logos", [best[0], bytes(16), *best[1:]], library_uid="")
    assert [candidate.uid for candidate in found] == best
    assert [candidate.features for candidate in found] == [
        features(COUNT - 1 - row) for row in range(30)
    ]
    assert await client.get_features("logos", [], library_uid="") == []
