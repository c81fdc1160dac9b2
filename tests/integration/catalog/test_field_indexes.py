"""Payload indexes of tags: created by the first filter, not by the first use."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagesearch_services.catalog.edge.storage import EdgeStorage
from imagesearch_services.catalog.filters import Match
from imagesearch_services.catalog.library import field_indexes
from imagesearch_services.catalog.payloads import METADATA
from imagesearch_services.catalog.storage import Fields
from tests.contract.catalog.support import all_of, has, make_entry, where
from tests.integration.catalog.edge_support import edge_catalog
from tests.waiting import until


async def indexed_fields(storage: EdgeStorage) -> list[str]:
    (record,) = await storage.scroll(METADATA, Match("kind", ("library",)), None, 2, Fields.ALL)
    fields: list[str] = record.payload["indexed_fields"]
    return fields


async def test_a_tag_is_indexed_when_a_filter_names_it(tmp_path: Path) -> None:
    async with edge_catalog(tmp_path) as (catalog, storage):
        await catalog.make_library("shop")
        await catalog.store("shop", make_entry("a", tags={f"t{n}": n for n in range(64)}))
        assert await indexed_fields(storage) == []
        assert await catalog.find("shop", where("tags.t5", "=", 5)) == {"a"}

        async def indexed() -> bool:
            return await indexed_fields(storage) == ["tags.t5"]

        await until(indexed)
        assert await catalog.find("shop", where("tags.t5", "=", 5)) == {"a"}
    async with edge_catalog(tmp_path) as (catalog, storage):
        assert await indexed_fields(storage) == ["tags.t5"]
        assert await catalog.find("shop", where("tags.t5", "<", 5)) == set()


async def test_filters_on_more_tags_than_are_indexed_are_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(field_indexes, "MAX_INDEXED_FIELDS", 2)
    async with edge_catalog(tmp_path) as (catalog, storage):
        await catalog.make_library("shop")
        tags = {f"t{n:02}": 2**53 + n for n in range(4)}
        await catalog.store("shop", make_entry("a", tags=tags), make_entry("b"))
        assert await catalog.find("shop", all_of(*(has(f"tags.{name}") for name in tags))) == {"a"}

        async def full() -> bool:
            return len(await indexed_fields(storage)) == 2

        await until(full)
        for name, value in tags.items():
            assert await catalog.find("shop", where(f"tags.{name}", "<=", value)) == {"a"}
            assert await catalog.find("shop", where(f"tags.{name}", ">=", value)) == {"a"}
            assert await catalog.find("shop", where(f"tags.{name}", "<", value)) == set()
            assert await catalog.find("shop", where(f"tags.{name}", ">", value)) == set()
        assert len(await indexed_fields(storage)) == 2
