"""`imagesearch` against a suite: add, search, update, delete, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from imagesearch.demo.pictures import data_folder, open_picture
from tests.e2e.cli.conftest import Program
from tests.pictures import encoded

ALBUM = {
    "1.jpg": "astronaut.png",
    "2.jpg": "camera.png",
    "3.jpg": "retina.jpg",
    "4.jpg": "rocket.jpg",
    "sub/100%.png": "chelsea.png",
}
PICTURES = len(ALBUM)


def photograph(name: str) -> Image.Image:
    """Open a picture of scikit-image, scaled down."""
    picture = open_picture(data_folder() / name)
    picture.thumbnail((320, 320))
    return picture


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Return a folder with pictures, a subfolder, and files to skip."""
    folder = tmp_path / "album"
    (folder / "sub").mkdir(parents=True)
    for path, name in ALBUM.items():
        file_format = "PNG" if path.endswith(".png") else "JPEG"
        (folder / path).write_bytes(encoded(photograph(name), file_format))
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.jpg").write_bytes(encoded(photograph("coffee.png")))
    return folder


def test_added_pictures_are_found_by_their_edited_copies(
    imagesearch: Program, shop: str, album: Path
) -> None:
    added = imagesearch("add", shop, album, "--tag", "year=2024", "--tag", "film=true")
    assert added.returncode == 0, added.stderr
    assert f"Added {PICTURES} pictures to {shop}" in added.stdout
    assert "Skipped 1 file without" in added.stdout

    (album.parent / "mirrored.jpg").write_bytes(encoded(ImageOps.mirror(photograph("chelsea.png"))))
    (album.parent / "unrelated.jpg").write_bytes(encoded(photograph("coffee.png")))
    found = imagesearch(
        "search", shop, "mirrored.jpg", "unrelated.jpg", "--json", "--filter", "tags.year = 2024"
    )
    assert found.returncode == 0, found.stderr
    mirrored, unrelated = map(json.loads, found.stdout.splitlines())
    best = mirrored["matches"][0]
    assert best["image"]["imageId"] == "sub%2F100%25.png"
    assert best["relation"] == "RELATION_SAME"
    assert best["image"]["tags"]["film"] == {"boolValue": True}
    assert 0 < best["score"] <= 1
    assert unrelated["matches"] == []


def test_results_are_printed_as_tables(imagesearch: Program, shop: str, album: Path) -> None:
    imagesearch("add", shop, album / "1.jpg", "--tag", "brand=acme")
    found = imagesearch("search", shop, album / "1.jpg")
    assert "score" in found.stdout
    assert "1.jpg" in found.stdout
    assert "brand=acme" in found.stdout
    assert "1 found" in found.stdout
    listed = imagesearch("library", "list")
    assert shop in listed.stdout


def test_a_picture_is_read_from_standard_input(
    imagesearch: Program, shop: str, album: Path
) -> None:
    imagesearch("add", shop, album / "1.jpg")
    found = imagesearch("search", shop, "-", "--json", stdin=encoded(photograph("astronaut.png")))
    assert json.loads(found.stdout)["matches"][0]["image"]["imageId"] == "1.jpg"


def test_unreadable_pictures_are_reported_and_the_others_added(
    imagesearch: Program, shop: str, album: Path
) -> None:
    (album / "broken.jpg").write_bytes(encoded(photograph("coins.png"))[:2000])
    (album / "empty.png").write_bytes(b"")
    added = imagesearch("add", shop, album, album / "gone.jpg", "--json")
    results = [json.loads(line) for line in added.stdout.splitlines()]
    assert added.returncode == 1
    assert sum("image" in result for result in results) == PICTURES
    reasons = {
        Path(result["path"]).name: result["error"]["details"][0]["reason"]
        for result in results
        if "error" in result
    }
    assert reasons["broken.jpg"] == "IMAGE_TRUNCATED"
    assert reasons["gone.jpg"] == "FILE_UNREADABLE"
    assert set(reasons) == {"broken.jpg", "empty.png", "gone.jpg"}
    listed = json.loads(imagesearch("image", "list", shop, "--limit", "0", "--json").stdout)
    assert len(listed["images"]) == PICTURES


def test_images_are_replaced_only_with_overwrite(
    imagesearch: Program, shop: str, album: Path
) -> None:
    assert imagesearch("add", shop, album).returncode == 0
    again = imagesearch("add", shop, album)
    assert again.returncode == 1
    assert "IMAGE_ALREADY_EXISTS: --overwrite replaces the image" in again.stderr
    assert imagesearch("add", shop, album, "--overwrite").returncode == 0


def test_images_are_updated_and_deleted(imagesearch: Program, shop: str, album: Path) -> None:
    imagesearch("add", shop, album, "--tag", "year=2024", "--entity", "trip")
    updated = imagesearch(
        "image", "update", shop, "1.jpg", "--tag", "rank=1.5", "--untag", "year", "--json",
        "--category", "bag",
    )  # fmt: skip
    assert updated.returncode == 0, updated.stderr
    image = json.loads(updated.stdout)
    assert image["tags"] == {"rank": {"floatValue": 1.5}}
    assert (image["category"], image["entityId"]) == ("CATEGORY_BAG", "trip")
    shown = json.loads(imagesearch("image", "get", shop, "1.jpg", "--json").stdout)
    assert shown["info"]["width"] == 320
    assert imagesearch("image", "delete", shop, "1.jpg", "2.jpg").returncode == 0
    assert imagesearch("image", "get", shop, "1.jpg").returncode == 1
    deleted = imagesearch("image", "delete", shop, "--filter", "tags.year = 2024")
    assert "Deleted 3 images" in deleted.stdout


def test_status_reports_a_serving_suite(imagesearch: Program) -> None:
    status = imagesearch("status", "--json")
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["status"] == "SERVING"


def test_an_error_is_one_line_with_a_hint(imagesearch: Program, shop: str, album: Path) -> None:
    missing = imagesearch("library", "get", "no-such-library")
    assert missing.returncode == 1
    assert missing.stderr.count("\n") == 1
    assert "LIBRARY_NOT_FOUND" in missing.stderr
    assert "imagesearch library list" in missing.stderr
    bad_filter = imagesearch("search", shop, album / "1.jpg", "--filter", "tags.year >")
    assert bad_filter.returncode == 1
    assert "FILTER_INVALID" in bad_filter.stderr
    bad_region = imagesearch("search", shop, album / "1.jpg", "--region", "900,900,950,950")
    assert "REGION_INVALID" in bad_region.stderr
