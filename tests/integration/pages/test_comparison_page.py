"""The page of a comparison in Chromium, at the widths of a phone and a desktop."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from imagesearch.client import CompareImagesResponse
from imagesearch.report import ComparedPicture, comparison_page
from imagesearch.type.v1.model_pb2 import StepTiming
from tests.browser import SIZES, opened, unreadable
from tests.pictures import encoded, photo

HOSTILE_NAME = "<script>window.hacked = 1</script>" + "x" * 200


@pytest.fixture(scope="module")
def page_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    answer = CompareImagesResponse(
        info_a={"width": 640, "height": 480},
        info_b={"width": 240, "height": 480},
        overlay=encoded(photo(3, (900, 500)), "PNG"),
        timings=[
            StepTiming(step="align", duration_ms=150),
            StepTiming(step="total", duration_ms=600),
        ],
    )
    page = comparison_page(
        ComparedPicture(HOSTILE_NAME, encoded(photo(1, (640, 480)))),
        ComparedPicture("кошка.jpg", encoded(photo(2, (240, 480)))),
        answer,
        verdict=["The same picture: cropped (49 % kept).", "Score 0.980."],
        facts=[("size", "640x480", "240x480"), ("bytes", "54,321", "12,345,678")],
        measures=[
            ("PDQ distance, best of eight orientations", "106", "256 bits"),
            ("mean squared error", "12,345.6", "levels of 255, squared"),
        ],
    )
    file: Path = tmp_path_factory.mktemp("page") / "comparison.html"
    file.write_text(page)
    return file.as_uri()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_text_is_readable_and_nothing_scrolls_sideways(
    browser: Browser, page_url: str, size: str, *, dark: bool
) -> None:
    with opened(browser, page_url, size=size, dark=dark) as page:
        assert unreadable(page) == []
        assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("size", SIZES)
def test_both_pictures_and_the_overlay_keep_their_aspect_ratios(
    browser: Browser, page_url: str, size: str
) -> None:
    with opened(browser, page_url, size=size) as page:
        shown = [page.locator(".picture").nth(0), page.locator(".picture").nth(1)]
        shapes = [(640, 480), (240, 480), (900, 500)]
        for place, (width, height) in zip([*shown, page.locator(".overlay")], shapes, strict=True):
            box = place.bounding_box()
            assert box is not None
            assert box["width"] / box["height"] == pytest.approx(width / height, rel=0.03)
