"""Product libraries on the command line, with drawings of products."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cli.conftest import Program
from tests.goods import BLUE, BOX, RED, blank_picture, carton
from tests.pictures import encoded

TOLERANCE_PX = 12


@pytest.fixture
def goods(tmp_path: Path) -> Path:
    """Return a folder with pictures of a red carton, a blue carton and no subject."""
    folder = tmp_path / "goods"
    folder.mkdir()
    (folder / "cola.png").write_bytes(encoded(carton(RED, "cola"), "PNG"))
    (folder / "milk.png").write_bytes(encoded(carton(BLUE, "milk"), "PNG"))
    (folder / "nothing.png").write_bytes(encoded(blank_picture(), "PNG"))
    return folder


@pytest.fixture
def store(imagesearch: Program, goods: Path) -> Iterator[str]:
    """Yield the id of a product library with these pictures."""
    name = f"cli-{uuid.uuid4().hex[:12]}"
    assert imagesearch("library", "create", name, "--type", "product").returncode == 0
    added = imagesearch("add", name, goods)
    assert added.returncode == 0, added.stderr
    assert "nothing.png: no subject was detected" in added.stderr
    yield name
    assert imagesearch("library", "delete", name).returncode == 0


def test_products_are_found_by_their_subject(imagesearch: Program, store: str, goods: Path) -> None:
    shown = imagesearch("search", store, goods / "milk.png", "--limit", "1")
    assert shown.returncode == 0, shown.stderr
    assert "Subject 1 of 1" in shown.stdout
    assert "milk.png" in shown.stdout
    red = imagesearch(
        "search", store, goods / "milk.png", "--filter", 'attributes.color = "red"', "--json"
    )
    answer = json.loads(red.stdout)
    assert [match["image"]["imageId"] for match in answer["matches"]] == ["cola.png"]
    assert answer["chosenSubject"] == 0
    whole = imagesearch("search", store, goods / "milk.png", "--no-subject-detection", "--json")
    assert json.loads(whole.stdout)["searchedRegion"]["xMax"] == 480


def test_a_box_and_a_category_are_stored_as_given(
    imagesearch: Program, store: str, goods: Path
) -> None:
    added = imagesearch(
        "add", store, goods / "cola.png", "--overwrite", "--region", "160,80,320,300",
        "--category", "bottle", "--json",
    )  # fmt: skip
    image = json.loads(added.stdout)["image"]
    assert (image["region"]["xMin"], image["category"]) == (160, "CATEGORY_BOTTLE")


def test_subjects_of_several_pictures_are_printed_in_order(
    imagesearch: Program, goods: Path
) -> None:
    detected = imagesearch(
        "detect", goods / "cola.png", goods / "nothing.png", goods / "gone.png", "--json"
    )
    assert detected.returncode == 1
    cola, empty, gone = (json.loads(line) for line in detected.stdout.splitlines())
    box = cola["subjects"][0]["box"]
    for side, expected in zip(("xMin", "yMin", "xMax", "yMax"), BOX, strict=True):
        assert abs(box[side] - expected) <= TOLERANCE_PX
    assert cola["subjects"][0]["colors"][0]["name"] == "red"
    assert empty["subjects"] == []
    assert gone["error"]["details"][0]["reason"] == "FILE_UNREADABLE"
    assert "No subject found." in imagesearch("detect", goods / "nothing.png").stdout
