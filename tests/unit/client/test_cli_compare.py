"""The output and the saved files of `imagesearch compare`."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imagesearch.cli import main
from imagesearch.client import CompareImagesResponse, Verdict
from imagesearch.type.v1.picture_pb2 import PictureInfo
from tests.unit.client.conftest import FakeGateway

CROPPED = CompareImagesResponse(
    verdict=Verdict.VERDICT_SAME_PICTURE,
    score=0.98,
    false_positive_rate=2e-5,
    likely_edits=["flipped_horizontally", "rotated_270", "cropped", "scaled"],
    measures={"shown_of_a": 0.49, "shown_of_b": 1, "agreement": 0.99, "scale": 2, "mse": 1234.5},
    info_a=PictureInfo(width=640, height=480, size_bytes=54321, media_type="image/jpeg"),
    overlay=b"a PNG",
)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_text(name)
    return str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")


def run(gateway: FakeGateway, *arguments: str | Path) -> Result:
    words = ["--target", gateway.target, "compare", *map(str, arguments)]
    return CliRunner().invoke(main, words)


def test_likely_edits_are_printed_as_text(gateway: FakeGateway, files: tuple[str, str]) -> None:
    gateway.answers("CompareImages", CROPPED)
    result = run(gateway, *files)
    assert result.exit_code == 0
    assert (
        "The same picture: flipped horizontally, rotated by 90° counter-clockwise, "
        "cropped (49 % kept), scaled (to 200 %)." in result.stdout
    )
    assert "Score 0.980" in result.stdout
    assert "less than 0.0001" in result.stdout
    assert "640x480" in result.stdout
    assert not gateway.requests[0].include_overlay


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Verdict.VERDICT_IDENTICAL_FILE, "The same file."),
        (Verdict.VERDICT_RELATED, "Related, but not the same picture."),
        (Verdict.VERDICT_DIFFERENT, "Different pictures."),
    ],
)
def test_each_verdict_has_a_sentence(
    gateway: FakeGateway, files: tuple[str, str], verdict: Verdict.ValueType, words: str
) -> None:
    gateway.answers("CompareImages", CompareImagesResponse(verdict=verdict))
    assert words in run(gateway, *files).stdout


def test_measures_of_a_chance_alignment_are_not_printed(
    gateway: FakeGateway, files: tuple[str, str]
) -> None:
    different = CompareImagesResponse(
        verdict=Verdict.VERDICT_DIFFERENT, measures={"agreement": 0.2, "scale": 0.3, "mse": 5}
    )
    gateway.answers("CompareImages", different)
    result = run(gateway, *files)
    assert "mean squared error" in result.stdout
    assert "scale" not in result.stdout


def test_the_overlay_is_saved_and_not_printed(
    gateway: FakeGateway, files: tuple[str, str], tmp_path: Path
) -> None:
    gateway.answers("CompareImages", CROPPED)
    result = run(gateway, *files, "--json", "--save", tmp_path / "both.png")
    assert (tmp_path / "both.png").read_bytes() == b"a PNG"
    assert gateway.requests[0].include_overlay
    printed = json.loads(result.stdout)
    assert printed["verdict"] == "VERDICT_SAME_PICTURE"
    assert printed["overlay"] == ""


def test_a_page_shows_both_pictures_and_their_overlay(
    gateway: FakeGateway, files: tuple[str, str], tmp_path: Path
) -> None:
    gateway.answers("CompareImages", CROPPED)
    result = run(gateway, *files, "--html", tmp_path / "both.html")
    assert result.exit_code == 0
    assert gateway.requests[0].include_overlay
    page = (tmp_path / "both.html").read_text()
    assert "flipped horizontally" in page
    assert "mean squared error" in page
    assert f"data:image/png;base64,{base64.b64encode(b'a PNG').decode()}" in page
    assert not list(tmp_path.glob("*.png"))


def test_standard_input_cannot_be_both_pictures(gateway: FakeGateway) -> None:
    assert run(gateway, "-", "-").exit_code == 2


def test_the_file_of_an_overlay_must_end_in_png(
    gateway: FakeGateway, files: tuple[str, str]
) -> None:
    assert run(gateway, *files, "--save", "both.jpg").exit_code == 2


def test_the_error_names_a_missing_file(
    gateway: FakeGateway, files: tuple[str, str], tmp_path: Path
) -> None:
    result = run(gateway, files[0], tmp_path / "nowhere.jpg")
    assert result.exit_code == 1
    assert "nowhere.jpg" in result.stderr
