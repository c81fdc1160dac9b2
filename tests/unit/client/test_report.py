"""What pages are made of: figures, badges, words. How pages look is tested in Chromium."""

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


def picture_of(source: str) -> Image.Image:
    header, _, data = source.partition(",")
    assert header == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("module", [words, searches])
def test_examples_in_docs_are_right(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_pictures_of_every_format_are_shown(file_format: str) -> None:
    shown = figure(encoded(photo(0), file_format), 320, 240, alt="")
    assert picture_of(shown.source).size == (320, 240)


def test_large_pictures_are_made_small_and_turned_ones_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "where I live"
    turned = encoded(photo(0, (3000, 2000)), "JPEG", exif=exif)
    small = picture_of(figure(turned, 2000, 3000, alt="").source)
    assert max(small.size) <= MAX_SIDE_PX
    assert small.height > small.width
    assert not small.getexif()


def test_transparency_is_shown_over_white() -> None:
    clear = encoded(Image.new("RGBA", (40, 40), (255, 0, 0, 0)), "PNG")
    assert picture_of(figure(clear, 40, 40, alt="").source).getpixel((20, 20)) == (255, 255, 255)


@pytest.mark.parametrize("content", [b"", b"no picture", encoded(photo(0))[:500]])
def test_what_is_no_picture_leaves_an_empty_frame(content: bytes) -> None:
    assert figure(content, 320, 240, alt="x").source == ""


def test_a_thumbnail_is_shown_as_it_came() -> None:
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
def test_badges_of_a_few_boxes_never_hide_each_other(
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


def test_a_page_takes_queries_as_they_come_and_keeps_none_of_their_files() -> None:
    taken: list[int] = []

    def queries() -> Iterator[Query]:
        for number in range(3):
            taken.append(number)
            yield Query(f"{number}.jpg", encoded(photo(number)), SearchImagesResponse())

    page = search_page("zoo", queries())
    assert taken == [0, 1, 2]
    assert page.count("<article") == 3


def test_a_page_asks_for_nothing_and_runs_nothing() -> None:
    answer = SearchImagesResponse(total_found=1)
    answer.matches.add().image.image_id = "<script>alert(1)</script>"
    page = search_page("zoo", [Query("x.jpg", b"", answer)])
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert "url(" not in page


def test_an_answer_of_a_newer_suite_is_shown_all_the_same() -> None:
    answer = SearchImagesResponse(total_found=1)
    match = answer.matches.add(relation=77)
    match.image.category = 999
    assert "<article" in search_page("zoo", [Query("x.jpg", b"", answer)])


def test_subjects_have_a_page() -> None:
    answer = DetectSubjectsResponse()
    answer.info.width, answer.info.height = 320, 240
    subject = answer.subjects.add(
        box=Box(x_max=100, y_max=90), category=Category.CATEGORY_SHOES, score=0.93
    )
    subject.colors.add(name="navy", hex="#1c2b5a", share=0.61)
    page = detection_page("shoe.jpg", encoded(photo(0)), answer)
    for shown in ("shoes", "0.93", "navy 61 %", "1 subject", 'href="#d-s1"', 'id="d-s1"'):
        assert shown in page


def test_a_hole_in_a_page_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("search.html", library_id="zoo")
