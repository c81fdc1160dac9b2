"""The files that `imagesearch add` finds, their image ids, and the batches."""

from __future__ import annotations

import os
from pathlib import Path

from imagesearch.cli import files


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"picture")


def ids(found: files.Found) -> list[str]:
    return [picture.image_id for picture in found.pictures]


def test_files_of_a_folder_are_found_in_a_stable_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.PNG", "sub/deep/c.webp", "sub/a.tiff")
    found = files.find_pictures([tmp_path])
    assert ids(found) == ["a.PNG", "b.jpg", "sub%2Fa.tiff", "sub%2Fdeep%2Fc.webp"]


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden.jpg", ".cache/a.jpg", "shown.jpg")
    found = files.find_pictures([tmp_path])
    assert ids(found) == ["shown.jpg"]
    assert found.skipped_count == 0


def test_files_with_other_extensions_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "notes.txt", "film.mp4")
    assert files.find_pictures([tmp_path]).skipped_count == 2


def test_a_file_given_by_name_is_added_with_any_extension(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden", "picture.dat")
    found = files.find_pictures([tmp_path / ".hidden", tmp_path / "picture.dat"])
    assert ids(found) == [".hidden", "picture.dat"]


def test_characters_that_are_invalid_in_image_ids_are_percent_encoded() -> None:
    assert files.image_id(Path("a/b%c.jpg")) == "a%2Fb%25c.jpg"
    assert files.image_id(Path("line\nbreak.jpg")) == "line%0Abreak.jpg"
    assert files.image_id(Path("Ä 1.jpg")) == "Ä 1.jpg"
    assert files.image_id(Path(os.fsdecode(b"latin\xe9.jpg"))) == "latin%E9.jpg"


def test_a_missing_file_is_reported_and_does_not_stop_the_others(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    found = files.find_pictures([tmp_path / "none.jpg", tmp_path / "a.jpg"])
    assert ids(found) == ["a.jpg"]
    assert found.rejected == [(tmp_path / "none.jpg", "No such file or directory")]


def test_a_second_file_with_the_same_id_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.jpg", "two/a.jpg")
    found = files.find_pictures([tmp_path / "one", tmp_path / "two"])
    assert ids(found) == ["a.jpg"]
    assert found.rejected[0][0] == tmp_path / "two/a.jpg"


def test_batches_stay_within_count_and_bytes() -> None:
    def pictures(*sizes: int) -> list[files.Picture]:
        return [files.Picture(Path(str(size)), str(size), size) for size in sizes]

    many = [len(batch) for batch in files.batches(pictures(*[1000] * 70))]
    assert many == [16, 16, 16, 16, 6]
    large = [len(batch) for batch in files.batches(pictures(*[10 * 2**20] * 5))]
    assert large == [2, 2, 1]
    alone = [len(batch) for batch in files.batches(pictures(30 * 2**20, 1, 1))]
    assert alone == [1, 2]
