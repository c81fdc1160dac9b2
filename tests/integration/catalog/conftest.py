"""Fixtures of the tests of the Catalog."""

from __future__ import annotations

import pytest

from imagesearch_services.catalog import __main__ as catalog_main
from imagesearch_services.catalog.inspection import command


@pytest.fixture(autouse=True)
def logs_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep commands that run in this process from logging to the captured output.

    It is closed after the test, but the logger would keep it.
    """
    for module in (catalog_main, command):
        monkeypatch.setattr(module, "configure_logs", lambda *_: None)
