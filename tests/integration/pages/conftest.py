"""One Chromium for the pages of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import running_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; while it runs, no asyncio test can, since Playwright's loop has the thread."""
    with running_browser() as browser:
        yield browser
