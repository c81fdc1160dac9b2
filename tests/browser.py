"""Headless Chromium for tests of rendered pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Flags that keep Chromium from using the network."""

SIZES = {"phone": (390, 844), "desktop": (1440, 900)}


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Start Chromium; skip the test if it is not installed."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed: `make system-packages`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, *, size: str, dark: bool = False) -> Iterator[Page]:
    """Open a page at the size of a phone or a desktop; fail if it requests anything else."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
    )
    try:
        page = context.new_page()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("dialog", lambda dialog: requests.append(f"dialog {dialog.message}"))
        page.goto(url)
        page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
        yield page
        assert [other for other in requests if other != url and not other.startswith("data:")] == []
    finally:
        context.close()


CUT_TEXT = """
() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    if (!node.data.trim() || !node.parentElement.checkVisibility()) continue;
    if (node.parentElement.closest('.visually-hidden, .skip, style')) continue;
    let block = node.parentElement;
    while (getComputedStyle(block).display.startsWith('inline') && block !== document.body)
      block = block.parentElement;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = block.getBoundingClientRect();
    for (const line of range.getClientRects()) {
      const isOut = line.left < box.left - 1 || line.right > box.right + 1 || line.bottom < 0
        || line.left < -1 || line.right > innerWidth + 1;
      if (isOut) found.push(`outside of ${block.tagName}.${block.className}: ${node.data.trim()}`);
    }
    for (let outer = node.parentElement; outer !== document.body; outer = outer.parentElement)
      if (outer.clientWidth && outer.scrollWidth > outer.clientWidth + 1
          && !getComputedStyle(outer).display.startsWith('inline'))
        found.push(`${outer.tagName}.${outer.className} is too narrow: ${node.data.trim()}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) found.push('the page scrolls sideways');
  return found;
}
"""
"""Script that returns every text that overflows its block or the screen."""

FAINT_TEXT = """
() => {
  const parse = (text) => {
    const parts = text.match(/[0-9.]+/g).map(Number);
    return parts.length < 4 ? [...parts, 1] : parts;
  };
  const luminance = (color) => {
    const [r, g, b] = color.slice(0, 3).map((level) => level / 255)
      .map((level) => level <= 0.03928 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const element = node.parentElement;
    const isHidden = element.closest('.visually-hidden, .skip, style');
    if (!node.data.trim() || !element.checkVisibility() || isHidden) continue;
    let behind = element;
    const isClear = (block) => parse(getComputedStyle(block).backgroundColor)[3] < 1;
    while (behind !== document.documentElement && isClear(behind)) behind = behind.parentElement;
    const [a, b] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
      .map((color) => luminance(parse(color))).sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) found.push(`${contrast.toFixed(2)}: ${node.data.trim()}`);
  }
  return found;
}
"""
"""Script that returns every text with less contrast than WCAG 2.2 requires (1.4.3, level AA)."""


def unreadable(page: Page) -> list[str]:
    """Open collapsed sections and return every text that is cut or faint."""
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    cut, faint = page.evaluate(CUT_TEXT), page.evaluate(FAINT_TEXT)
    return [*(f"cut: {text}" for text in cut), *(f"faint: {text}" for text in faint)]
