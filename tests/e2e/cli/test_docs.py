"""The examples in the client's docstrings, tried on the suite."""

from __future__ import annotations

import asyncio
import doctest
from types import ModuleType

import pytest

import imagesearch.client
import imagesearch.client._aio
import imagesearch.client._errors
import imagesearch.client._sync
import imagesearch.client.requests
from imagesearch.client import Client, ImageSearchError, LibraryType, requests
from imagesearch_services.runner.suite import Suite
from tests.pictures import encoded, photo


@pytest.mark.parametrize(
    "module",
    [
        imagesearch.client,
        imagesearch.client._aio,
        imagesearch.client._errors,
        imagesearch.client._sync,
        imagesearch.client.requests,
    ],
    ids=lambda module: module.__name__,
)
def test_examples_hold(module: ModuleType, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
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
                "requests": requests,
                "ImageSearchError": ImageSearchError,
                "LibraryType": LibraryType,
            }
            tried = doctest.testmod(module, extraglobs=names)
        finally:
            client.delete_library(name=zoo.name)
    assert tried.attempted
    assert not tried.failed
