"""`--save` and `--html` of real searches: the annotated picture, and the page in Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from imagesearch.client import Client, LibraryType
from imagesearch_services.runner.suite import Suite
from tests.browser import SIZES, opened, running_browser, unreadable
from tests.e2e.cli.conftest import Program
from tests.pictures import encoded, photo, photograph

AMBER = (255, 176, 0)
PASTED = (120, 100, 570, 400)
SCRIPTS = ("кошка", "قطة", "חתול", "बिल्ली", "แมว", "猫", "🐈")


@pytest.fixture(scope="module")
def zoo(suite: Suite) -> Iterator[str]:
    """Yield the id of a library of photographs with tags in several scripts."""
    with Client(suite.target) as client:
        library = client.create_library(
            library_id="saved-zoo", library_type=LibraryType.LIBRARY_TYPE_WHOLE_IMAGE
        )
        for row, word in enumerate(SCRIPTS):
            client.add_image(
                parent=library.name,
                image_id=f"{word} <b>{row}.jpg",
                image=encoded(photo(row + 1, (450, 300))),
                tags={"word": word, "number": row},
            )
        yield library.name.removeprefix("libraries/")
        client.delete_library(name=library.name)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Return a picture of grass with a stored photograph pasted into it."""
    lawn = photograph("grass.png").resize((1200, 800))
    lawn.paste(photo(1, (PASTED[2] - PASTED[0], PASTED[3] - PASTED[1])), PASTED[:2])
    path = tmp_path / "scene.png"
    lawn.save(path)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


def test_save_outlines_the_matched_part_of_the_query(
    imagesearch: Program, zoo: str, scene: Path, tmp_path: Path
) -> None:
    drawing = tmp_path / "drawn.webp"
    done = imagesearch("search", zoo, scene, "--json", "--save", drawing)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["warnings"] == []
    assert "annotatedImage" not in answer or not answer["annotatedImage"]
    found = answer["matches"][0]["queryBox"]
    with Image.open(drawing) as opened_drawing:
        picture = opened_drawing.convert("RGB")
    assert max(picture.size) <= 1280
    amber = np.abs(np.asarray(picture).astype(int) - AMBER).max(axis=2) < 60
    # The longest amber rows and columns are the edges of the outline.
    rows, columns = (np.flatnonzero(amber.mean(axis=axis) > 0.2) for axis in (1, 0))
    scale = (columns.max() - columns.min()) / (found["xMax"] - found["xMin"])
    assert 0.5 < scale < 1.2  # size in the drawing relative to the query
    expected = scale * (found["yMax"] - found["yMin"])
    assert rows.max() - rows.min() == pytest.approx(expected, abs=10)


def test_a_page_shows_all_queries_with_boxes_and_matches(
    imagesearch: Program, browser: Browser, zoo: str, scene: Path, tmp_path: Path
) -> None:
    (tmp_path / "copy.jpg").write_bytes(encoded(photo(2, (640, 480))))
    (tmp_path / "notes.txt").write_text("no picture")
    page_file = tmp_path / "found.html"
    done = imagesearch(
        "search", zoo, scene, "copy.jpg", "notes.txt", "gone.jpg", "--html", page_file,
        "--relation", "both",
    )  # fmt: skip
    assert done.returncode == 1  # two of four files are unreadable
    for size in SIZES:
        with opened(browser, page_file.as_uri(), size=size) as page:
            assert unreadable(page) == []
            assert page.locator("article").count() == 4
            assert page.locator("#q1 .picture.large .badge.match").count() >= 1
            assert page.locator("#q2-m1 .id").inner_text() == f"{SCRIPTS[1]} <b>1.jpg"
            thumbnails = page.locator(".matches img")
            assert thumbnails.count() == page.locator(".matches > li").count()
            assert thumbnails.evaluate_all("all => all.every(image => image.naturalWidth > 100)")
            failures = page.locator(".note.error").all_inner_texts()
            assert len(failures) == 2
            assert "the file is not a picture in a supported format" in failures[0]


def test_the_subjects_of_a_picture_are_saved(
    imagesearch: Program, browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "coffee.jpg").write_bytes(encoded(photo(3, (600, 400))))
    done = imagesearch("detect", "coffee.jpg", "--save", "seen.png", "--html", "seen.html")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "seen.png") as drawing:
        assert drawing.width / drawing.height == pytest.approx(1.5, rel=0.01)
    for size in SIZES:
        with opened(browser, (tmp_path / "seen.html").as_uri(), size=size) as page:
            assert unreadable(page) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.jpg", "--save", "a.gif"), "must end in .png, .jpg, .jpeg, .webp"),
        (("a.jpg", "b.jpg", "--save", "a.png"), "--save takes a single picture"),
        (("a.jpg", "--html", "."), "is a directory"),
    ],
)
def test_invalid_outputs_are_usage_errors_before_any_search(
    imagesearch: Program, arguments: tuple[str, ...], words: str
) -> None:
    done = imagesearch("search", "nowhere", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
