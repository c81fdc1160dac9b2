"""`imagesearch duplicates` and `reject`, against the suite."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import ImageOps

from tests.e2e.cli.conftest import Program
from tests.pictures import encoded, photo


def test_duplicates_are_found_and_not_found_after_rejection(
    imagesearch: Program, shop: str, tmp_path: Path
) -> None:
    folder = tmp_path / "album"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.jpg").write_bytes(encoded(photo(seed)))
    (folder / "mirrored.jpg").write_bytes(encoded(ImageOps.mirror(photo(1, (240, 180)))))
    added = imagesearch("add", shop, folder)
    assert added.returncode == 0, added.stderr

    found = imagesearch("duplicates", shop, "--json", "--html", "duplicates.html")
    assert found.returncode == 0, found.stderr
    messages = [json.loads(line) for line in found.stdout.splitlines()]
    (group,) = [message["group"] for message in messages if message.get("group")]
    assert [member["image"]["imageId"] for member in group["images"]] == ["1.jpg", "mirrored.jpg"]
    assert group["images"][1]["pixelsAgree"]
    page = (tmp_path / "duplicates.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2

    assert "1 group, 1 duplicate in" in imagesearch("duplicates", shop).stdout
    rejected = imagesearch("reject", shop, "1.jpg", "mirrored.jpg")
    assert rejected.returncode == 0, rejected.stderr
    assert "0 groups, 0 duplicates" in imagesearch("duplicates", shop).stdout
    missing = imagesearch("reject", shop, "1.jpg", "gone.jpg")
    assert missing.returncode == 1
    assert "IMAGE_NOT_FOUND" in missing.stderr
