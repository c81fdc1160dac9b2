"""The examples in the client's docstrings run against a suite."""

from __future__ import annotations

import asyncio
import doctest
from types import ModuleType

import pytest

import imagesearch.client
import imagesearch.client._aio
import imagesearch.client._errors
import imagesearch.client._sync
import imagesearch.client.request_builders
from imagesearch.client import Client, ImageSearchError, LibraryType, request_builders
from imagesearch_services.runner.suite import Suite
from tests.pictures import encoded, photo


@pytest.mark.parametrize(
    "module",
    [
        imagesearch.client,
        imagesearch.client._aio,
        imagesearch.client._errors,
        imagesearch.client._sync,
        imagesearch.client.request_builders,
    ],
    ids=lambda module: module.__name__,
)
def test_examples_run_as_documented(
    module: ModuleType, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGESEARCH_TARGET", suite.target)
    picture = encoded(photo(5))
    with Client() as client:
        zoo = client.create_library(
            library_id="zoo", library_type=LibraryType.LIBRARY_TYPE_WHOLE_IMAGE
        )
        try:
            client.add_image(parent=zoo.name, image_id="cat", image=picture)
            names = {
                "asyncio": asyncio,
                "client": client,
                "picture": picture,
                "request_builders": request_builders,
                "ImageSearchError": ImageSearchError,
                "LibraryType": LibraryType,
            }
            results = doctest.testmod(module, extraglobs=names)
        finally:
            client.delete_library(name=zoo.name)
    assert results.attempted
    assert not results.failed
