"""CompareImages through every service."""

from __future__ import annotations

import asyncio
import io
import math
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageOps

from imagesearch.gateway.v1 import search_pb2
from imagesearch.type.v1 import picture_pb2
from imagesearch_services.common.errors import Reason
from tests.e2e.cli.conftest import Program, imagesearch  # noqa: F401  # a fixture
from tests.e2e.conftest import Stub
from tests.e2e.errors import refused
from tests.pictures import encoded, photo, png_header

PHOTO = photo(0, (480, 480))
JPEG = encoded(PHOTO, quality=92)

SAME = search_pb2.VERDICT_SAME_PICTURE


def request(first: bytes, second: bytes, *, draw: bool = False) -> search_pb2.CompareImagesRequest:
    return search_pb2.CompareImagesRequest(
        image_a=picture_pb2.ImageContent(content=first),
        image_b=picture_pb2.ImageContent(content=second),
        include_overlay=draw,
    )


def compare(gateway: Stub, first: bytes, second: bytes) -> search_pb2.CompareImagesResponse:
    return gateway.CompareImages(request(first, second), timeout=60)


def test_equal_bytes_are_an_identical_file(gateway: Stub) -> None:
    answer = compare(gateway, JPEG, JPEG)
    assert answer.verdict == search_pb2.VERDICT_IDENTICAL_FILE
    assert answer.score == 1
    assert 0 < answer.false_positive_rate < 0.01
    assert not answer.likely_edits
    assert answer.info_a.sha256 == answer.info_b.sha256
    assert not answer.overlay
    assert answer.timings[-1].step == "total"


def with_words(picture: Image.Image) -> Image.Image:
    written = picture.copy()
    ImageDraw.Draw(written).text((60, 380), "SALE TODAY", fill="white", font_size=48)
    return written


EDITED = {
    "re_encoded": encoded(PHOTO, quality=60),
    "cropped": encoded(PHOTO.crop((100, 50, 400, 350))),
    "flipped_horizontally": encoded(ImageOps.mirror(PHOTO)),
    "flipped_vertically": encoded(ImageOps.flip(PHOTO)),
    "rotated_90": encoded(PHOTO.transpose(Image.Transpose.ROTATE_270)),
    "rotated_180": encoded(PHOTO.transpose(Image.Transpose.ROTATE_180)),
    "rotated_270": encoded(PHOTO.transpose(Image.Transpose.ROTATE_90)),
    "greyscale": encoded(PHOTO.convert("L")),
    "scaled": encoded(PHOTO.resize((200, 200))),
    "aspect_changed": encoded(PHOTO.resize((480, 300))),
    "overlaid": encoded(with_words(PHOTO)),
    "framed": encoded(ImageOps.expand(PHOTO, 50, "black")),
}


@pytest.mark.parametrize("edit", EDITED)
def test_an_edited_copy_is_the_same_picture_and_its_edit_is_named(gateway: Stub, edit: str) -> None:
    answer = compare(gateway, JPEG, EDITED[edit])
    assert answer.verdict == SAME
    assert answer.score > 0.9
    assert answer.false_positive_rate < 0.005
    assert edit in answer.likely_edits


def test_unrelated_pictures_are_different(gateway: Stub) -> None:
    answer = compare(gateway, JPEG, encoded(photo(11)))
    assert answer.verdict in {search_pb2.VERDICT_DIFFERENT, search_pb2.VERDICT_RELATED}
    assert answer.score < 0.1
    assert answer.false_positive_rate > 0.01
    assert not answer.likely_edits


def test_blank_pages_are_the_same_only_with_equal_colors(gateway: Stub) -> None:
    white, other_white, blue = (
        encoded(Image.new("RGB", size, colour), "PNG")
        for size, colour in (((90, 90), "white"), ((400, 200), "white"), ((90, 90), "blue"))
    )
    assert compare(gateway, white, other_white).verdict == SAME
    assert compare(gateway, white, blue).verdict != SAME


def test_a_very_wide_picture_can_be_compared_with_a_very_tall_picture(gateway: Stub) -> None:
    answer = compare(
        gateway, encoded(photo(3, (4000, 20)), "PNG"), encoded(photo(4, (20, 4000)), "PNG")
    )
    assert answer.verdict not in {SAME, search_pb2.VERDICT_IDENTICAL_FILE}
    assert all(math.isfinite(value) for value in answer.measures.values())


BAD = {
    "missing": (b"", Reason.FIELD_REQUIRED),
    "no picture": (b"nothing to see", Reason.IMAGE_UNREADABLE),
    "truncated": (JPEG[: len(JPEG) // 2], Reason.IMAGE_TRUNCATED),
    "one pixel": (encoded(Image.new("RGB", (1, 1)), "PNG"), Reason.IMAGE_TOO_SMALL),
    "huge": (png_header(90_000, 90_000), Reason.IMAGE_TOO_LARGE),
    "11 MiB": (JPEG + b"\0" * (11 << 20), Reason.IMAGE_TOO_LARGE),
}


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_picture_is_refused_in_either_field(gateway: Stub, name: str) -> None:
    content, reason = BAD[name]
    for first, second, field in ((content, JPEG, "image_a"), (JPEG, content, "image_b")):
        error = refused(gateway.CompareImages, request(first, second))
        assert error.reason is reason
        assert field in error.message


async def test_concurrent_comparisons_are_all_answered(async_gateway: Stub) -> None:
    async def verdict(edited: bytes) -> search_pb2.Verdict.ValueType:
        answer: search_pb2.CompareImagesResponse
        answer = await async_gateway.CompareImages(request(JPEG, edited))
        return answer.verdict

    verdicts = await asyncio.gather(*(verdict(edited) for edited in EDITED.values()))
    assert set(verdicts) == {SAME}


def test_the_command_line_prints_the_verdict_and_saves_the_overlay(
    imagesearch: Program,  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "b.jpg").write_bytes(EDITED["flipped_horizontally"])
    done = imagesearch("compare", "a.jpg", "b.jpg", "--save", "both.png")
    assert done.returncode == 0, done.stderr
    assert "The same picture: flipped horizontally" in done.stdout
    with Image.open(io.BytesIO((tmp_path / "both.png").read_bytes())) as overlay:
        assert overlay.format == "PNG"
        assert overlay.width > 1000
