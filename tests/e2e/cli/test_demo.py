"""The program of `make demo`, with the default pictures and with a folder of pictures."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imagesearch.demo.pictures import data_folder, open_picture
from imagesearch_services.runner.suite import Suite


def demo(suite: Suite, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "imagesearch.demo", "--target", suite.target, *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=580,
    )


@pytest.mark.timeout(600)
def test_the_demo_passes(suite: Suite) -> None:
    result = demo(suite)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Result: as expected." in result.stdout


@pytest.mark.timeout(600)
def test_the_demo_passes_with_a_folder_of_pictures(suite: Suite, tmp_path: Path) -> None:
    for name in ("astronaut.png", "chelsea.png", "rocket.jpg"):
        shutil.copy(data_folder() / name, tmp_path)
    open_picture(data_folder() / "rocket.jpg").save(tmp_path / "copy.jpg", quality=60)
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    result = demo(suite, "--images", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Added 4 pictures" in result.stdout
    assert "not added" in result.stderr


def test_the_demo_without_a_suite_fails_with_a_hint() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "imagesearch.demo", "--target", "127.0.0.1:1"],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "make up" in result.stderr
