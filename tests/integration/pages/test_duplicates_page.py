"""The page of duplicates in Chromium, at the widths of a phone and a desktop."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from imagesearch.client import DuplicateGroup
from imagesearch.gateway.v1.image_pb2 import Image
from imagesearch.gateway.v1.search_pb2 import DuplicateImage
from imagesearch.report import duplicates_page
from tests.browser import SIZES, opened, unreadable
from tests.pictures import encoded, photo

HOSTILE_IDS = (
    "<script>window.hacked = 1</script>",
    "x" * 255,
    "مرحبا.png",
    "\u202egpj.exe",
    "{{ 7 * 7 }}",
)
SHAPES = ((320, 240), (60, 320), (320, 40))


def groups() -> list[DuplicateGroup]:
    """Return groups of two to six images with hostile ids."""
    return [
        DuplicateGroup(
            images=[
                DuplicateImage(
                    image=Image(
                        name=f"libraries/zoo/images/{number}-{place}",
                        image_id=HOSTILE_IDS[place % len(HOSTILE_IDS)],
                        info={"width": shape[0] * 4, "height": shape[1] * 4},
                    ),
                    score=1 - place / 10,
                    pixels_agree=place % 2 == 1,
                )
                for place, shape in enumerate((SHAPES * 2)[: number + 1])
            ]
        )
        for number in range(1, 6)
    ]


@pytest.fixture(scope="module")
def page_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    shown = groups()
    thumbnails = {
        member.image.name: encoded(photo(place, SHAPES[place % 3]))
        for group in shown
        for place, member in enumerate(group.images)
        if place != 2
    }
    file: Path = tmp_path_factory.mktemp("page") / "duplicates.html"
    file.write_text(duplicates_page("zoo", shown, thumbnails, checked_count=1234))
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
def test_each_group_shows_its_images_with_the_image_to_keep_first(
    browser: Browser, page_url: str, size: str
) -> None:
    with opened(browser, page_url, size=size) as page:
        articles = page.locator("article")
        assert articles.count() == 5
        for number in range(5):
            members = articles.nth(number).locator(".matches > li")
            assert members.count() == number + 2
            assert members.first.locator(".badge").inner_text() == "keep"
            for place in range(number + 2):
                picture = members.nth(place).locator(".picture").bounding_box()
                assert picture is not None
                width, height = SHAPES[place % 3]
                assert picture["width"] / picture["height"] == pytest.approx(
                    width / height, rel=0.03
                )
