"""Index builds of the embedded engine."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.catalog.edge.files import CURRENT_FILE
from imagesearch_services.catalog.edge.layout import RECORD_FILE
from tests.contract.catalog.support import (
    SPACE,
    Catalog,
    random_units,
    where,
)
from tests.integration.catalog.edge_support import (
    add_random_entries,
    collections_folder,
    edge_catalog,
    index_built,
    index_started,
)
from tests.waiting import until


async def hits_among_nearest(
    catalog: Catalog, library_id: str, queries: Sequence[bytes], limit: int = 10
) -> int:
    """Return the number of hits, over all queries, that are among the exact nearest entries."""
    uids: list[bytes] = []
    values: list[bytes] = []
    request = pb.ListEntriesRequest(library_id=library_id, page_size=1000, include_vectors=True)
    while True:
        page = await catalog.stub.ListEntries(request)
        uids += (entry.uid for entry in page.entries)
        values += (entry.vectors[0].values for entry in page.entries)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    stored = np.frombuffer(b"".join(values), "<f4").reshape(len(uids), -1)
    found = 0
    for query in queries:
        (hits,) = await catalog.query(library_id, query, limit=limit)
        nearest = np.argsort(-(stored @ np.frombuffer(query, "<f4")))[:limit]
        found += len({hit.uid for hit in hits} & {uids[row] for row in nearest})
    return found


async def test_searches_and_writes_work_during_an_index_build(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path, INDEXING_THRESHOLD="6000") as (catalog, storage):
        await catalog.make_library("shop", spaces=[{"name": SPACE, "dimensions": 64}])
        vectors = await add_random_entries(catalog, "shop", 6000)
        (uid,) = storage._indexer._tasks
        folder = collections_folder(tmp_path) / uid
        await until((folder / "1").exists)
        await index_started(storage, uid)
        turns = 0
        while uid in storage._indexer._tasks and turns < 500:
            # Additions, overwrites and deletions take effect immediately.
            entry = pb.Entry(image_id=f"new {turns}")
            entry.vectors.add(space=SPACE, values=random_units(1, 64, seed=100_000 + turns)[0])
            overwritten = pb.Entry(image_id=f"image {turns}")
            overwritten.vectors.add(
                space=SPACE, values=random_units(1, 64, seed=200_000 + turns)[0]
            )
            await catalog.store("shop", entry, overwritten, allow_overwrite=[False, True])
            await catalog.delete("shop", f"image {5999 - turns}")
            for sent in (entry, overwritten):
                (hits,) = await catalog.query(
                    "shop", sent.vectors[0].values, include_entries=True, limit=1
                )
                assert hits[0].entry.image_id == sent.image_id
            turns += 1
        await index_built(storage, uid)
        assert turns > 3
        assert {path.name for path in folder.iterdir()} == {"1", CURRENT_FILE, RECORD_FILE}
        library = await catalog.library("shop")
        assert library.entry_count == 6000
        assert library.unindexed_vector_count <= 4 * turns
        for turn in range(turns):
            for name, seed in ((f"new {turn}", 100_000), (f"image {turn}", 200_000)):
                (hits,) = await catalog.query(
                    "shop", random_units(1, 64, seed=seed + turn)[0], include_entries=True, limit=1
                )
                assert hits[0].entry.image_id == name
        assert await catalog.get("shop", *(f"image {5999 - turn}" for turn in range(turns))) == []
        assert await hits_among_nearest(catalog, "shop", vectors[1000:1100]) >= 980
    async with edge_catalog(tmp_path) as (catalog, _):
        reopened = await catalog.library("shop")
        assert reopened.entry_count == 6000
        assert reopened.unindexed_vector_count <= 4 * turns


@pytest.mark.parametrize("compact", [True, False])
async def test_an_index_build_keeps_the_data_types_of_a_library(
    tmp_path: Path, compact: bool
) -> None:
    async with edge_catalog(tmp_path, INDEXING_THRESHOLD="1500") as (catalog, storage):
        spaces = [
            {"name": SPACE, "dimensions": 64, "compact": compact},
            {"name": "words@1", "sparse": True, "compact": compact},
        ]
        await catalog.make_library("shop", spaces=spaces)
        vectors = await add_random_entries(catalog, "shop", 1500)
        (uid,) = storage._indexer._tasks
        await index_built(storage, uid)
        folder = collections_folder(tmp_path) / uid / "1"
        config = json.loads((folder / "edge_config.json").read_text())
        spaces_config = [config["vectors"][SPACE], config["sparse_vectors"]["words@1"]]
        data_types = ["turbo8", "float16"] if compact else [None, None]
        assert [space.get("datatype") for space in spaces_config] == data_types
        name = "tq_vectors.dat" if compact else "matrix.dat"
        (file,) = folder.glob(f"segments/*/vector_storage-{SPACE}/{name}")
        assert file.stat().st_size // 1500 in (range(64, 80) if compact else range(256, 260))
        assert await catalog.nearest("shop", vectors[77], limit=1) == ["image 77"]


async def test_a_tag_first_used_during_an_index_build_is_filterable(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path, INDEXING_THRESHOLD="2000") as (catalog, storage):
        await catalog.make_library("shop", spaces=[{"name": SPACE, "dimensions": 64}])
        await add_random_entries(catalog, "shop", 2000)
        (uid,) = storage._indexer._tasks
        await index_started(storage, uid)
        tagged = pb.Entry(image_id="tagged", tags={"late": {"bool_value": True}})
        tagged.vectors.add(space=SPACE, values=random_units(1, 64, seed=9)[0])
        await catalog.store("shop", tagged)
        await index_built(storage, uid)
        assert (collections_folder(tmp_path) / uid / CURRENT_FILE).read_text() == "1"
        assert await catalog.find("shop", where("tags.late", "=", True)) == {"tagged"}
    shard = qdrant_edge.EdgeShard.load(str(collections_folder(tmp_path) / uid / "1"))
    assert {"tags.late", "category", "sharpness"} <= shard.info().payload_schema.keys()
    shard.close()


async def test_a_shutdown_does_not_wait_for_an_index_build(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path, INDEXING_THRESHOLD="20000") as (catalog, storage):
        await catalog.make_library("shop", spaces=[{"name": SPACE, "dimensions": 64}])
        await add_random_entries(catalog, "shop", 20_000)
        (uid,) = storage._indexer._tasks
        await index_started(storage, uid)
        shutdown_began = time.monotonic()
    assert time.monotonic() - shutdown_began < 5
    async with edge_catalog(tmp_path) as (catalog, _):
        assert (await catalog.library("shop")).entry_count == 20_000
        assert {path.name for path in (collections_folder(tmp_path) / uid).iterdir()} == {
            "0",
            CURRENT_FILE,
            RECORD_FILE,
        }


async def test_a_library_can_be_deleted_during_its_index_build(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path, INDEXING_THRESHOLD="5000") as (catalog, storage):
        await catalog.make_library("shop", spaces=[{"name": SPACE, "dimensions": 64}])
        await add_random_entries(catalog, "shop", 5000)
        (uid,) = storage._indexer._tasks
        await index_started(storage, uid)
        await catalog.stub.DeleteLibrary(pb.DeleteLibraryRequest(library_id="shop"))
        assert not (collections_folder(tmp_path) / uid).exists()
        await catalog.make_library("shop")
