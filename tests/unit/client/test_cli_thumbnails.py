"""`imagesearch image thumbnail`, and libraries without thumbnails."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from imagesearch.cli import main
from imagesearch.client import Library
from imagesearch.gateway.v1 import image_pb2
from tests.unit.client.conftest import FakeGateway, status

JPEG = b"\xff\xd8 thumbnail \xff\xd9"
MISSING = status(grpc.StatusCode.NOT_FOUND, "a has no thumbnail", "THUMBNAIL_NOT_FOUND")


def test_a_thumbnail_is_written_to_a_file(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.answers("GetThumbnail", image_pb2.GetThumbnailResponse(content=JPEG))
    file = tmp_path / "a.jpg"
    words = ["--target", gateway.target, "image", "thumbnail", "shop", "a", "-o"]
    assert CliRunner().invoke(main, [*words, str(file)]).exit_code == 0
    assert file.read_bytes() == JPEG
    assert gateway.requests[0].name == "libraries/shop/images/a"
    assert CliRunner().invoke(main, [*words, "-"]).stdout_bytes == JPEG


def test_a_missing_thumbnail_leaves_no_file(gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.answers("GetThumbnail", MISSING)
    file = tmp_path / "a.jpg"
    words = ["--target", gateway.target, "image", "thumbnail", "shop", "a", "-o", str(file)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "a has no thumbnail" in result.stderr
    assert "--overwrite" in result.stderr
    assert not file.exists()


@pytest.mark.parametrize(
    ("option", "disabled"), [("--no-thumbnails", True), ("--thumbnails", False)]
)
def test_a_library_stores_thumbnails_or_not(
    gateway: FakeGateway, option: str, disabled: bool
) -> None:
    gateway.answers("CreateLibrary", Library(name="libraries/shop"))
    gateway.answers("UpdateLibrary", Library(name="libraries/shop"))
    words = ["--target", gateway.target, "library"]
    CliRunner().invoke(main, [*words, "create", "shop", "--type", "whole-image", option])
    CliRunner().invoke(main, [*words, "update", "shop", option])
    created, updated = gateway.requests
    assert created.library.thumbnails_disabled is disabled
    assert updated.library.thumbnails_disabled is disabled
    assert list(updated.update_mask.paths) == ["thumbnails_disabled"]
