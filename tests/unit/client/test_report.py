"""Parts of pages: figures, badges and text. tests/integration/pages renders pages in Chromium."""

from __future__ import annotations

import base64
import doctest
import io
import itertools
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from PIL import Image

from imagesearch.client import Category, DetectSubjectsResponse, SearchImagesResponse
from imagesearch.report import (
    Outline,
    Query,
    detection_page,
    figure,
    render,
    search_page,
    searches,
    thumbnail,
    words,
)
from imagesearch.report.figures import BADGE_SHARE, MAX_SIDE_PX, place_badges
from imagesearch.type.v1.geometry_pb2 import Box
from tests.pictures import encoded, photo


def decode(source: str) -> Image.Image:
    header, _, data = source.partition(",")
    assert header == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("module", [words, searches])
def test_examples_run_as_documented(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_pictures_of_all_formats_are_shown(file_format: str) -> None:
    shown = figure(encoded(photo(0), file_format), 320, 240, alt="")
    assert decode(shown.source).size == (320, 240)


def test_large_pictures_are_scaled_down_and_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "home"
    turned = encoded(photo(0, (3000, 2000)), "JPEG", exif=exif)
    small = decode(figure(turned, 2000, 3000, alt="").source)
    assert max(small.size) <= MAX_SIDE_PX
    assert small.height > small.width
    assert not small.getexif()


def test_transparent_pixels_become_white() -> None:
    clear = encoded(Image.new("RGBA", (40, 40), (255, 0, 0, 0)), "PNG")
    assert decode(figure(clear, 40, 40, alt="").source).getpixel((20, 20)) == (255, 255, 255)


@pytest.mark.parametrize("content", [b"", b"no picture", encoded(photo(0))[:500]])
def test_an_unreadable_picture_leaves_an_empty_frame(content: bytes) -> None:
    assert figure(content, 320, 240, alt="x").source == ""


def test_a_thumbnail_is_not_changed() -> None:
    jpeg = encoded(photo(0))
    shown = thumbnail(jpeg, 0, 0, alt="x")
    assert base64.b64decode(shown.source.partition(",")[2]) == jpeg
    assert shown.ratio == 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 900), st.floats(0, 500), st.floats(20, 400), st.floats(20, 300)),
        max_size=8,
    )
)
def test_badges_of_eight_boxes_do_not_overlap(
    corners: list[tuple[float, float, float, float]],
) -> None:
    outlines = [
        Outline(points=[(x, y), (x + w, y), (x + w, y + h), (x, y + h)], title="", badge="1")
        for x, y, w, h in corners
    ]
    placed = place_badges(outlines, 1300, 800)
    for outline in placed:
        assert BADGE_SHARE / 2 <= outline.badge_at[0] <= 1 - BADGE_SHARE / 2
        assert 0 < outline.badge_at[1] < 1
    hidden = [
        max(0, 1 - abs(a.badge_at[0] - b.badge_at[0]) / BADGE_SHARE)
        * max(0, 1 - abs(a.badge_at[1] - b.badge_at[1]) / (BADGE_SHARE * 1300 / 800))
        for a, b in itertools.combinations(placed, 2)
    ]
    assert max(hidden, default=0) < 0.01


def test_a_page_consumes_its_queries_lazily() -> None:
    consumed: list[int] = []

    def queries() -> Iterator[Query]:
        for number in range(3):
            consumed.append(number)
            yield Query(f"{number}.jpg", encoded(photo(number)), SearchImagesResponse())

    page = search_page("zoo", queries())
    assert consumed == [0, 1, 2]
    assert page.count("<article") == 3


def test_a_page_loads_nothing_and_runs_no_script() -> None:
    answer = SearchImagesResponse(total_found=1)
    answer.matches.add().image.image_id = "<script>alert(1)</script>"
    page = search_page("zoo", [Query("x.jpg", b"", answer)])
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert "url(" not in page


def test_unknown_enum_values_of_a_newer_suite_are_accepted() -> None:
    answer = SearchImagesResponse(total_found=1)
    match = answer.matches.add(relation=77)
    match.image.category = 999
    assert "<article" in search_page("zoo", [Query("x.jpg", b"", answer)])


def test_the_page_of_subjects_shows_category_score_and_colors() -> None:
    answer = DetectSubjectsResponse()
    answer.info.width, answer.info.height = 320, 240
    subject = answer.subjects.add(
        box=Box(x_max=100, y_max=90), category=Category.CATEGORY_SHOES, score=0.93
    )
    subject.colors.add(name="navy", hex="#1c2b5a", share=0.61)
    page = detection_page("shoe.jpg", encoded(photo(0)), answer)
    for shown in ("shoes", "0.93", "navy 61 %", "1 subject", 'href="#d-s1"', 'id="d-s1"'):
        assert shown in page


def test_a_missing_template_variable_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("search.html", library_id="zoo")
