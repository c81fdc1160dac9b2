"""A Chromium that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import running_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield a Chromium. No asyncio test can run with it: Playwright's loop occupies the thread."""
    with running_browser() as browser:
        yield browser
