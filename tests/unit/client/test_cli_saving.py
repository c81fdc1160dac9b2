"""`--save` and `--html` never replace an input."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imagesearch.cli import main
from imagesearch.client import (
    CompareImagesResponse,
    DetectSubjectsResponse,
    SearchImagesResponse,
)
from tests.unit.client.conftest import FakeGateway


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_text("the only copy")
    return path


def run(gateway: FakeGateway, *arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["--target", gateway.target, *map(str, arguments)])


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("search", "zoo"), "--save"),
        (("search", "zoo"), "--html"),
        (("detect",), "--save"),
        (("detect",), "--html"),
        (("compare", "-"), "--save"),
    ],
)
def test_an_input_is_not_replaced(
    gateway: FakeGateway, picture: Path, command: tuple[str, ...], option: str
) -> None:
    gateway.answers("SearchImages", SearchImagesResponse(annotated_image=b"drawn"))
    gateway.answers("DetectSubjects", DetectSubjectsResponse(annotated_image=b"drawn"))
    gateway.answers("CompareImages", CompareImagesResponse(overlay=b"drawn"))
    result = run(gateway, *command, os.path.relpath(picture), option, picture)
    assert result.exit_code == 2
    assert "would be replaced" in result.stderr
    assert picture.read_text() == "the only copy"
    assert not gateway.requests


@pytest.mark.parametrize("command", [("search", "zoo"), ("detect",)])
def test_a_page_is_not_written_to_standard_output(
    gateway: FakeGateway,
    picture: Path,
    command: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(picture.parent)
    result = run(gateway, *command, picture.name, "--html", "-")
    assert result.exit_code == 2
    assert "standard output is used for the answers" in result.stderr
    assert not gateway.requests
    assert not Path("-").exists()


def test_the_picture_and_the_page_cannot_be_the_same_file(
    gateway: FakeGateway, picture: Path
) -> None:
    both = picture.with_name("both.png")
    result = run(gateway, "detect", picture, "--save", both, "--html", both)
    assert result.exit_code == 2
    assert not both.exists()


def test_a_missing_overlay_leaves_no_empty_file(gateway: FakeGateway, picture: Path) -> None:
    gateway.answers("CompareImages", CompareImagesResponse())
    other = picture.with_name("b.png")
    other.write_text("b")
    result = run(gateway, "compare", picture, other, "--save", picture.with_name("over.png"))
    assert result.exit_code == 1
    assert not picture.with_name("over.png").exists()


@pytest.mark.parametrize("command", [("search", "zoo"), ("detect",), ("duplicates",)])
def test_a_missing_folder_is_reported_before_any_call(
    gateway: FakeGateway, picture: Path, command: tuple[str, ...]
) -> None:
    argument = "zoo" if command == ("duplicates",) else picture
    result = run(gateway, *command, argument, "--html", picture.with_name("gone") / "page.html")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr
    assert not gateway.requests
