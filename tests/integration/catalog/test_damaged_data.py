"""Bytes that changed on the disk: what they belong to is not served, everything else is."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.catalog.model import entry_uid
from imagesearch_services.common.errors import Reason
from tests.contract.catalog.support import (
    SPACE,
    make_entry,
    random_units,
    refused,
    running_catalog,
    settings_for,
    vector_at,
    where,
)
from tests.integration.catalog.edge_support import collections_folder

JPEG = b"\xff\xd8 one \xff\xd9"
ENTITY = "q7Zk-w3Xv-9mLp"
"""A text without repetitions, which the compressed payload holds as it is."""


async def store(folder: Path) -> pb.Library:
    async with running_catalog(settings_for(folder)) as catalog:
        library = await catalog.make_library("shop")
        await catalog.store(
            "shop",
            make_entry("good", vector_at(0), tags={"n": 1}, features=bytes(range(256))),
            make_entry(
                "bad",
                vector_at(10),
                tags={"n": 2},
                entity_id=ENTITY,
                features=b"features " * 30,
                thumbnail=JPEG,
            ),
            make_entry("far", vector_at(90), tags={"n": 3}),
        )
        return library


def change(folder: Path, pattern: str, old: bytes, new: bytes) -> None:
    """Replace bytes in the one file that contains them."""
    assert len(old) == len(new)
    files = [file for file in folder.glob(pattern) if old in file.read_bytes()]
    assert files, f"{old!r} is in no file"
    for file in files:
        file.write_bytes(file.read_bytes().replace(old, new))


PAYLOADS = "*/segments/*/payload_storage/page_*.dat"


@pytest.mark.parametrize("kind", ["readable", "unreadable"])
async def test_an_entry_with_a_changed_payload_is_not_served(tmp_path: Path, kind: str) -> None:
    library = await store(tmp_path)
    new = ENTITY.replace("Z", "z") if kind == "readable" else ENTITY.replace("-", "\0")
    change(
        collections_folder(tmp_path) / library.uid,
        PAYLOADS,
        ENTITY.encode(),
        new.encode(),
    )
    async with running_catalog(settings_for(tmp_path)) as catalog:
        # A filter without an index reads the payloads; so does a search that returns entries.
        found = await catalog.stub.ListEntries(
            pb.ListEntriesRequest(library_id="shop", filter=where("tags.n", ">=", 0))
        )
        assert {entry.image_id for entry in found.entries} == {"good", "far"}
        assert await catalog.nearest("shop", vector_at(10)) == ["good", "far"]
        (hits,) = await catalog.query("shop", vector_at(10), limit=1)
        assert hits[0].uid == entry_uid("bad")  # a search without entries reads no payload
        assert [entry.image_id for entry in await catalog.get("shop", "good", "bad", "far")] == [
            "good",
            "far",
        ]
        with refused(Reason.IMAGE_DAMAGED) as errors:
            await catalog.get("shop", "bad")
        assert errors[0].metadata == {"image": "libraries/shop/images/bad"}
        with refused(Reason.IMAGE_DAMAGED):
            await catalog.update(
                "shop", pb.Entry(image_id="bad", custom_content="c"), "custom_content"
            )
        (result,) = await catalog.put("shop", make_entry("bad"))
        assert "damaged" in result.error.message
        await catalog.store("shop", make_entry("bad", vector_at(10)), allow_overwrite=[True])
        assert await catalog.nearest("shop", vector_at(10), limit=1) == ["bad"]


async def test_a_damaged_entry_can_be_deleted(tmp_path: Path) -> None:
    library = await store(tmp_path)
    change(
        collections_folder(tmp_path) / library.uid,
        PAYLOADS,
        ENTITY.encode(),
        ENTITY.replace("-", "\0").encode(),
    )
    async with running_catalog(settings_for(tmp_path)) as catalog:
        assert await catalog.delete("shop", "bad") == 1
        assert (await catalog.library("shop")).entry_count == 2


async def test_changed_features_vectors_and_thumbnails_are_not_served(tmp_path: Path) -> None:
    library = await store(tmp_path)
    shards = collections_folder(tmp_path) / library.uid
    (thumbnail,) = (tmp_path / "catalog" / "thumbnails").rglob("*.jpg")
    async with running_catalog(settings_for(tmp_path)) as catalog:
        (entry,) = await catalog.get("shop", "bad", include_features=True, include_vectors=True)
        assert (entry.features, await catalog.thumbnails("shop", "bad")) == (
            b"features " * 30,
            [JPEG],
        )
    thumbnail.write_bytes(JPEG.replace(b"one", b"two"))
    vector = np.frombuffer(entry.vectors[0].values, "<f4")
    changed = vector.copy()
    changed[5] = 0.25
    change(
        shards,
        "*/segments/*/vector_storage-*/vectors/chunk_*.mmap",
        vector.tobytes(),
        changed.tobytes(),
    )
    async with running_catalog(settings_for(tmp_path)) as catalog:
        assert await catalog.thumbnails("shop", "bad") == [b""]
        with refused(Reason.IMAGE_DAMAGED):
            await catalog.get("shop", "bad", include_vectors=True)
        assert len(await catalog.get("shop", "bad")) == 1
    thumbnail.write_bytes(b"")
    async with running_catalog(settings_for(tmp_path)) as catalog:
        assert await catalog.thumbnails("shop", "bad") == [b""]


async def test_the_engine_returns_what_was_sealed(tmp_path: Path) -> None:
    numbers = random.Random(3)  # noqa: S311
    entries = [
        make_entry(
            f"image {n}",
            values,
            tags={
                f"t{k}": numbers.uniform(-1, 1) * 10 ** numbers.randint(-30, 30) for k in range(9)
            }
            | {"whole": 1.0, "text": "é☃\x01", "int": numbers.randint(-(2**63), 2**63 - 1)},
            region={"x_min": 0.1, "y_min": 0.2, "x_max": 1 / 3, "y_max": 0.7},
            features=numbers.randbytes(500),
        )
        for n, values in enumerate(random_units(200))
    ]
    spaces = [{"name": SPACE, "dimensions": 16, "compact": True}]
    async with running_catalog(settings_for(tmp_path)) as catalog:
        await catalog.make_library("shop", spaces=spaces)
        await catalog.store("shop", *entries)
        image_ids = [entry.image_id for entry in entries]
        found = await catalog.get("shop", *image_ids, include_vectors=True, include_features=True)
        assert [entry.image_id for entry in found] == image_ids
        only_features = pb.GetEntriesRequest(
            library_id="shop", image_ids=image_ids, features_only=True
        )
        assert len((await catalog.stub.GetEntries(only_features)).entries) == len(entries)
