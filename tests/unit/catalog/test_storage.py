"""Parameters of a search in the storage engine."""

from __future__ import annotations

from dataclasses import replace

from imagesearch_services.catalog.storage import Search


def test_ef_is_at_least_the_limit_of_a_search() -> None:
    search = Search(space="copy@1", vectors=[], limit=48)
    assert search.ef(128) == 128
    assert replace(search, breadth=0.5).ef(128) == 64
    assert replace(search, breadth=0.25).ef(128) == 48
