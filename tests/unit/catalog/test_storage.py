"""Searches as the storage gets them."""

from __future__ import annotations

from dataclasses import replace

from imagesearch_services.catalog.storage import Search


def test_the_breadth_of_a_search_is_at_least_its_limit() -> None:
    search = Search(space="copy@1", vectors=[], limit=48)
    assert search.ef(128) == 128
    assert replace(search, breadth=0.5).ef(128) == 64
    assert replace(search, breadth=0.25).ef(128) == 48
