"""The switch to an indexed copy when syncing its folder fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imagesearch_services.catalog.edge import files
from imagesearch_services.catalog.edge.engine import Engine
from imagesearch_services.catalog.edge.files import copy_folder, read_generation
from imagesearch_services.catalog.edge.protocol import Failure
from imagesearch_services.catalog.model import VectorSpace
from imagesearch_services.catalog.storage import Fields, Point
from tests.contract.catalog.support import SPACE, vector_at
from tests.integration.catalog.edge_support import edge_settings

SPACES = [VectorSpace(SPACE, 16)]


def point(number: int) -> Point:
    return Point(bytes([number] * 16), {SPACE: vector_at(number)}, {"image_id": f"{number}"})


def test_a_switch_whose_sync_fails_removes_no_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = edge_settings(tmp_path)
    collection = settings.folder / "shop"
    engine = Engine(settings)

    def run(command: str, *arguments: object) -> Any:
        result = engine.execute(command, arguments)
        assert not isinstance(result, Failure), result
        return result

    def fail(_: Path) -> None:
        raise OSError(5, "Input/output error")

    try:
        run("create_collection", "shop", SPACES, {})
        run("upsert", "shop", [point(1)])
        shard, copy = run("prepare_copy", "shop")
        copy_folder(shard, copy)
        run("open_copy", "shop")
        with monkeypatch.context() as patch:
            patch.setattr(files, "sync_folder", fail)
            run("switch_to_copy", "shop")
        assert read_generation(collection) == 1
        assert (collection / "0").is_dir()
        run("drop_copy", "shop")  # as the indexer does after an error
        assert (collection / "1").is_dir()
        run("upsert", "shop", [point(2)])
    finally:
        engine.close()
        engine._folder._lock.close()
    engine = Engine(settings)
    try:
        records = run("scroll", "shop", None, None, 10, Fields.ALL, False)
        assert [record.payload["image_id"] for record in records] == ["1", "2"]
    finally:
        engine.close()
