"""`make demo`'s program, with its own pictures and with somebody's folder."""

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
def test_the_demo_finds_what_it_should(suite: Suite) -> None:
    shown = demo(suite)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "Verdict: as it should be." in shown.stdout


@pytest.mark.timeout(600)
def test_the_demo_takes_a_folder(suite: Suite, tmp_path: Path) -> None:
    for name in ("astronaut.png", "chelsea.png", "rocket.jpg"):
        shutil.copy(data_folder() / name, tmp_path)
    open_picture(data_folder() / "rocket.jpg").save(tmp_path / "twin.jpg", quality=60)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    shown = demo(suite, "--images", tmp_path)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "Added 4 pictures" in shown.stdout
    assert "not added" in shown.stderr


def test_the_demo_without_a_suite_says_how_to_start_one() -> None:
    nowhere = subprocess.run(
        [sys.executable, "-m", "imagesearch.demo", "--target", "127.0.0.1:1"],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert nowhere.returncode == 1
    assert "make up" in nowhere.stderr
