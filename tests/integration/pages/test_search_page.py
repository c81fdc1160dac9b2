"""The page of searches in Chromium, at the widths of a phone and a desktop."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from imagesearch.client import Box, Category, Relation, SearchImagesResponse, tag_value
from imagesearch.report import Query, search_page
from imagesearch.type.v1.geometry_pb2 import Point, Quadrilateral
from tests.browser import SIZES, opened, unreadable
from tests.pictures import encoded, photo

MATCH, SUBJECT = (255, 176, 0), (61, 220, 151)
WIDTH, HEIGHT = 1200, 800

HOSTILE_TEXTS = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "{{ 7 * 7 }}{% for x in y %}",
    "javascript:alert(1)",
    "x" * 255,
    "مرحبا بالعالم.png",
    "\u202egpj.exe",
    "日本語の写真😀.webp",
)


def box(*edges: float) -> Box:
    return Box(**dict(zip(("x_min", "y_min", "x_max", "y_max"), edges, strict=True)))


BOXES = [box(60, 80, 500, 420), box(60, 80, 700, 700), box(640.5, 30.25, 1160, 380)]
TILTED = [(700.0, 450.0), (1100.0, 520.0), (1020.0, 770.0), (650.0, 690.0)]
SUBJECTS = [box(20, 20, 1180, 780), box(300, 300, 620, 760)]


def answer(*, with_shapes: bool = True) -> SearchImagesResponse:
    response = SearchImagesResponse(
        total_found=len(HOSTILE_TEXTS), warnings=["the store is <away>"]
    )
    response.query_info.width, response.query_info.height = WIDTH, HEIGHT
    response.query_info.media_type = "image/png"
    response.searched_region.CopyFrom(box(0, 0, WIDTH, HEIGHT))
    for row, image_id in enumerate(HOSTILE_TEXTS):
        match = response.matches.add(
            score=1 - 0.1 * row,
            relation=Relation.RELATION_SAME if row < 4 else Relation.RELATION_SIMILAR,
            false_positive_rate=10.0 ** (row - 8),
        )
        match.image.image_id = match.image.entity_id = image_id
        match.image.category = Category.CATEGORY_DIGITAL_DEVICE
        match.image.info.width, match.image.info.height = 640, (360, 1600, 640)[row % 3]
        for name, value in {"brand": image_id, "price": 12.5, "sale": True}.items():
            match.image.tags[name].CopyFrom(tag_value(value))
        if row % 3:
            match.thumbnail = encoded(photo(row, (160, 160)))
        if with_shapes and row < len(BOXES):
            match.query_box.CopyFrom(BOXES[row])
    if with_shapes:
        response.matches[3].instances.append(
            Quadrilateral(corners=[Point(x=x, y=y) for x, y in TILTED])
        )
        for row, shape in enumerate(SUBJECTS):
            subject = response.subjects.add(box=shape, category=Category.CATEGORY_DRESS, score=0.9)
            subject.colors.add(name="navy", hex="#1c2b5a", share=0.6)
            subject.attributes.add(name="pattern", value=HOSTILE_TEXTS[row], score=0.5)
    for step, time_ms in (("embed", 31.0), ("embed:infer", 28.0), ("query", 6.0), ("total", 38.0)):
        response.timings.add(step=step, duration_ms=time_ms)
    response.thresholds.add(
        relation=Relation.RELATION_SAME, min_score=0.4, false_positive_rate=0.01
    )
    response.models.add(role="copy", name="sscd", version="1")
    return response


@pytest.fixture(scope="module")
def page_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    flat = encoded(Image.new("RGB", (WIDTH, HEIGHT), (120, 120, 120)), "PNG")
    queries = [
        Query("flat.png", flat, answer()),
        Query(HOSTILE_TEXTS[1], encoded(photo(0, (300, 900))), answer(with_shapes=False)),
        Query("none.jpg", encoded(photo(1)), SearchImagesResponse()),
        Query("gone.tiff", b"", f"the picture is truncated, {HOSTILE_TEXTS[0]} [IMAGE_TRUNCATED]"),
    ]
    path: Path = tmp_path_factory.mktemp("pages") / "search.html"
    path.write_text(
        search_page("zoo", queries, restrictions=[f"filter tags.a = '{HOSTILE_TEXTS[0]}'"])
    )
    return path.as_uri()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_text_is_readable_and_nothing_scrolls_sideways(
    browser: Browser, page_url: str, size: str, *, dark: bool
) -> None:
    with opened(browser, page_url, size=size, dark=dark) as page:
        assert unreadable(page) == []


def shapes_expected() -> list[list[tuple[float, float]]]:
    """Return corners in drawing order: subjects, then matches."""
    upright = [
        [
            (shape.x_min, shape.y_min),
            (shape.x_max, shape.y_min),
            (shape.x_max, shape.y_max),
            (shape.x_min, shape.y_max),
        ]
        for shape in (*SUBJECTS, *BOXES)
    ]
    return [*upright, TILTED]


@pytest.mark.parametrize("size", SIZES)
def test_outlines_have_the_position_and_size_of_their_boxes(
    browser: Browser, page_url: str, size: str
) -> None:
    with opened(browser, page_url, size=size) as page:
        frame, shapes = frame_and_shapes(page)
        assert frame["width"] / frame["height"] == pytest.approx(WIDTH / HEIGHT, rel=0.005)
        factor = frame["width"] / WIDTH
        assert len(shapes) == len(shapes_expected())
        for drawn, corners in zip(shapes, shapes_expected(), strict=True):
            xs, ys = zip(*corners, strict=True)
            assert drawn["left"] - frame["left"] == pytest.approx(min(xs) * factor, abs=1)
            assert drawn["top"] - frame["top"] == pytest.approx(min(ys) * factor, abs=1)
            assert drawn["width"] == pytest.approx((max(xs) - min(xs)) * factor, abs=1.5)
            assert drawn["height"] == pytest.approx((max(ys) - min(ys)) * factor, abs=1.5)


def frame_and_shapes(page: Page) -> tuple[Any, Any]:
    """Return the bounding boxes of the first picture and of its outlines."""
    seen = page.evaluate("""() => {
        const picture = document.querySelector('.picture.large');
        const shapes = [...picture.querySelectorAll('polygon.line')];
        return [picture, ...shapes].map(each => {
            const box = each.getBoundingClientRect();
            return {left: box.left, top: box.top, width: box.width, height: box.height};
        });
    }""")
    return seen[0], seen[1:]


@pytest.mark.parametrize("size", SIZES)
def test_outlines_are_drawn_at_the_pixels_of_their_boxes(
    browser: Browser, page_url: str, size: str
) -> None:
    with opened(browser, page_url, size=size) as page:
        page.add_style_tag(content=".badge { visibility: hidden }")
        shot = page.locator(".picture.large").first.screenshot()
    with Image.open(io.BytesIO(shot)) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    factor = pixels.shape[1] / WIDTH
    for row, corners in enumerate(shapes_expected()):
        color = SUBJECT if row < len(SUBJECTS) else MATCH
        hits = [near(pixels, x * factor, y * factor, color) for x, y in along(corners)]
        assert np.mean(hits) > 0.85, corners  # other outlines may cross this one
        inside = [near(pixels, x * factor, y * factor, color) for x, y in along(shrunk(corners))]
        assert np.mean(inside) < 0.2, corners


def along(corners: list[tuple[float, float]]) -> list[tuple[float, float]]:
    shares = np.linspace(0.05, 0.95, 30)
    return [
        (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share)
        for a, b in itertools.pairwise([*corners, corners[0]])
        for share in shares
    ]


def shrunk(corners: list[tuple[float, float]]) -> list[tuple[float, float]]:
    center = np.mean(corners, axis=0)
    return [tuple(center + (np.asarray(corner) - center) * 0.87) for corner in corners]


def near(
    pixels: np.ndarray[Any, np.dtype[Any]], x: float, y: float, color: tuple[int, int, int]
) -> bool:
    """Return whether a pixel or its neighbor has the color, since lines are between pixels."""
    left, top = max(0, round(x) - 1), max(0, round(y) - 1)
    patch = pixels[top : top + 3, left : left + 3]
    return bool((np.abs(patch - color).max(axis=2) < 70).any())


@pytest.mark.parametrize("size", SIZES)
def test_badges_neither_overlap_nor_leave_the_picture(
    browser: Browser, page_url: str, size: str
) -> None:
    with opened(browser, page_url, size=size) as page:
        frame, *badges = page.evaluate("""() => {
            const picture = document.querySelector('.picture.large');
            return [picture, ...picture.querySelectorAll('.badge')].map(each => {
                const box = each.getBoundingClientRect();
                return [box.left, box.top, box.right, box.bottom];
            });
        }""")
    assert len(badges) == len(shapes_expected())
    for badge in badges:
        assert frame[0] - 1 <= badge[0]
        assert frame[1] - 1 <= badge[1]
        assert badge[2] <= frame[2] + 1
        assert badge[3] <= frame[3] + 1
    for a, b in itertools.combinations(badges, 2):
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        assert min(width, height) <= 1, (a, b)


def test_text_from_libraries_is_escaped_and_never_runs(browser: Browser, page_url: str) -> None:
    with opened(browser, page_url, size="desktop") as page:
        assert page.evaluate("window.hacked") is None
        assert page.locator("script").count() == 0
        assert page.locator("#q1-m1 .id").inner_text() == HOSTILE_TEXTS[0]
        assert page.locator("#q1-m3 .id").inner_text() == HOSTILE_TEXTS[2]
        assert page.locator("img").evaluate_all("all => all.every(each => each.alt)")
        assert "never" not in page.locator(".note").first.inner_text()


def test_a_badge_links_to_its_match_and_elements_have_accessible_names(
    browser: Browser, page_url: str
) -> None:
    with opened(browser, page_url, size="phone") as page:
        page.locator(".picture.large .badge.match").nth(2).click()
        assert page.url.endswith("#q1-m3")
        assert page.locator("#q1-m3").evaluate("each => each.matches(':target')")
        tree = page.locator("body").aria_snapshot()
    for words in ("Search of zoo", "match 1", "by chance in", "Subjects"):
        assert words in tree
