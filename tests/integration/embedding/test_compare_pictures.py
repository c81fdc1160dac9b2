"""ComparePictures on a real Triton."""

from __future__ import annotations

import asyncio
import io
import math

import grpc.aio
import pytest
from PIL import Image

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.type.v1 import picture_pb2
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.status import from_rpc_error
from imagesearch_services.embedding.pictures.limits import MAX_PIXELS
from tests.integration.embedding.harness import SERVING, Client, running_embedding
from tests.pictures import encoded, photo, png_header

PHOTO = photo(1, (480, 360))
JPEG = encoded(PHOTO, quality=92)

ORIENTATIONS = {
    "rotated 90": Image.Transpose.ROTATE_270,  # Pillow rotates counter-clockwise
    "rotated 180": Image.Transpose.ROTATE_180,
    "rotated 270": Image.Transpose.ROTATE_90,
    "flipped_horizontally": Image.Transpose.FLIP_LEFT_RIGHT,
    "flipped_vertically": Image.Transpose.FLIP_TOP_BOTTOM,
    "flipped_horizontally, rotated 270": Image.Transpose.TRANSPOSE,
    "flipped_horizontally, rotated 90": Image.Transpose.TRANSVERSE,
}
"""Pillow's transpositions by the names of the edits that they are reported as."""


def request(first: bytes, second: bytes, *, draw: bool = False) -> pb.ComparePicturesRequest:
    return pb.ComparePicturesRequest(
        image_a=picture_pb2.ImageContent(content=first),
        image_b=picture_pb2.ImageContent(content=second),
        include_overlay=draw,
    )


async def compare(
    client: Client, first: bytes, second: bytes, *, draw: bool = False
) -> pb.ComparePicturesResponse:
    response: pb.ComparePicturesResponse = await client.embedding.ComparePictures(
        request(first, second, draw=draw), timeout=60
    )
    return response


def edit_names(response: pb.ComparePicturesResponse) -> str:
    return ", ".join(
        edit.name + (f" {edit.amount:.0f}" if edit.name == "rotated" else "")
        for edit in response.edits
    )


async def test_a_picture_compared_with_itself_has_no_difference(client: Client) -> None:
    response = await compare(client, JPEG, JPEG)
    measures = response.measures
    assert measures["mse"] == 0
    assert math.isinf(measures["psnr_db"])
    assert measures["ssim"] == measures["aligned_ssim"] == pytest.approx(1)
    assert measures["phash_distance"] == measures["pdq_distance"] == 0
    assert measures["copy_similarity"] == pytest.approx(1, abs=1e-5)
    assert measures["agreement"] > 0.99
    assert not response.edits
    assert response.info_a == response.info_b
    assert response.model.name == "sscd"
    assert not response.overlay


@pytest.mark.parametrize("names", ORIENTATIONS)
async def test_each_orientation_is_reported(client: Client, names: str) -> None:
    turned = encoded(PHOTO.transpose(ORIENTATIONS[names]), quality=92)
    response = await compare(client, JPEG, turned)
    assert edit_names(response) == names
    assert response.measures["inlier_count"] > 50
    assert response.measures["agreement"] > 0.95
    assert response.measures["pdq_distance_turned"] < 20


async def test_a_crop_is_reported_with_its_share_in_either_order(client: Client) -> None:
    crop = encoded(PHOTO.crop((60, 40, 60 + 240, 40 + 180)), "PNG")
    for first, second, share in ((JPEG, crop, "shown_of_a"), (crop, JPEG, "shown_of_b")):
        response = await compare(client, first, second)
        assert response.edits[0].name == "cropped"
        assert response.edits[0].amount == pytest.approx(0.25, abs=0.01)
        assert response.measures[share] == pytest.approx(0.25, abs=0.01)


async def test_a_pasted_picture_is_reported_as_embedded(client: Client) -> None:
    page = photo(8, (900, 700))
    page.paste(PHOTO.resize((300, 225)), (500, 400))
    response = await compare(client, JPEG, encoded(page))
    assert response.edits[0].name == "embedded"
    assert response.edits[0].amount == pytest.approx(300 * 225 / (900 * 700), abs=0.01)
    assert response.measures["aligned_copy_closeness"] > 0.7
    assert response.measures["scale"] == pytest.approx(300 / 480, abs=0.02)


async def test_greyscale_is_reported(client: Client) -> None:
    response = await compare(client, JPEG, encoded(PHOTO.convert("L")))
    assert "greyscale" in edit_names(response)


async def test_different_pictures_have_low_similarities(client: Client) -> None:
    response = await compare(client, JPEG, encoded(photo(2, (480, 360))))
    assert response.measures.get("agreement", 0) < 0.5
    assert response.measures["copy_closeness"] < 0.3
    assert response.measures["pdq_distance"] > 80


async def test_the_overlay_is_a_png_file(client: Client) -> None:
    for other in (encoded(PHOTO.rotate(20, expand=True)), encoded(photo(2))):
        response = await compare(client, JPEG, other, draw=True)
        with Image.open(io.BytesIO(response.overlay)) as overlay:
            assert overlay.format == "PNG"
            assert overlay.width > 500
            assert overlay.height > 200


EXTREME_PICTURES = {
    "one color": Image.new("RGB", (200, 200), (200, 30, 30)),
    "another color": Image.new("RGB", (64, 300), (30, 30, 200)),
    "very wide": photo(3, (4000, 16)),
    "very high": photo(3, (16, 4000)),
    "smallest": photo(3, (16, 16)),
    "transparent": Image.new("RGBA", (50, 50)),
}


@pytest.mark.parametrize("name", EXTREME_PICTURES)
async def test_extreme_pictures_are_compared_with_a_photo_and_themselves(
    client: Client, name: str
) -> None:
    extreme = encoded(EXTREME_PICTURES[name], "PNG")
    for first, second in ((extreme, JPEG), (JPEG, extreme), (extreme, extreme)):
        response = await compare(client, first, second, draw=True)
        finite = {name: value for name, value in response.measures.items() if name != "psnr_db"}
        assert all(math.isfinite(value) for value in finite.values()), finite
        assert response.overlay


async def refusal(client: Client, first: bytes, second: bytes) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await compare(client, first, second)
    return from_rpc_error(caught.value, peer=Reason.EMBEDDING_UNAVAILABLE)


INVALID_PICTURES = {
    "no bytes": (b"", Reason.FIELD_REQUIRED),
    "not a picture": (b"hello, world", Reason.IMAGE_UNREADABLE),
    "half a JPEG": (JPEG[: len(JPEG) // 2], Reason.IMAGE_TRUNCATED),
    "one pixel": (encoded(Image.new("RGB", (1, 1)), "PNG"), Reason.IMAGE_TOO_SMALL),
    "decompression bomb": (png_header(60_000, 60_000), Reason.IMAGE_TOO_LARGE),
}


@pytest.mark.parametrize("name", INVALID_PICTURES)
async def test_the_error_names_the_invalid_picture(client: Client, name: str) -> None:
    content, reason = INVALID_PICTURES[name]
    for first, second, field in ((content, JPEG, "image_a"), (JPEG, content, "image_b")):
        error = await refusal(client, first, second)
        assert error.reason is reason
        assert error.metadata["field"] == f"{field}.content"


async def test_concurrent_comparisons_get_their_own_results(client: Client) -> None:
    files = [encoded(photo(seed)) for seed in range(8)]
    responses = await asyncio.gather(*(compare(client, file, file) for file in files))
    for file, response in zip(files, responses, strict=True):
        assert response.measures["mse"] == 0
        assert response.info_a.size_bytes == len(file)


async def test_calls_whose_two_pictures_fill_the_budget_do_not_deadlock(client: Client) -> None:
    # If the pictures were admitted one by one, two calls could wait for each other's pixels.
    large = encoded(Image.new("L", (7000, 7000), 128), "PNG")
    assert MAX_PIXELS < 2 * 7000 * 7000
    response = await compare(client, large, large)
    assert response.measures["mse"] == 0


async def test_a_call_over_a_full_budget_is_refused_at_once(triton: object) -> None:
    address = triton.ports.grpc_address  # type: ignore[attr-defined]
    large = encoded(Image.new("L", (5000, 5000), 128), "PNG")
    async with running_embedding(address, PIXEL_BUDGET="50000000") as client:
        await client.until(SERVING)
        outcomes = await asyncio.gather(
            *(compare(client, large, large) for _ in range(4)), return_exceptions=True
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
        assert 0 < len(refused) < len(outcomes)
        for refusal in refused:
            error = from_rpc_error(refusal, peer=Reason.EMBEDDING_UNAVAILABLE)
            assert error.reason is Reason.OVERLOADED
            assert error.retry_after_s
