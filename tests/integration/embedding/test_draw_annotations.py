"""DrawAnnotations without Triton: drawing needs no model."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import numpy as np
import pytest
from PIL import Image

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.type.v1 import geometry_pb2, picture_pb2
from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.status import from_rpc_error
from tests.integration.embedding.harness import Client, running_embedding
from tests.pictures import encoded, photo, png_header
from tests.ports import free_port

AMBER = (255, 176, 0)
PICTURE = picture_pb2.ImageContent(content=encoded(photo(3, (640, 480))))


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with running_embedding(f"127.0.0.1:{free_port()}") as client:
        yield client


def box(*edges: float) -> geometry_pb2.Box:
    return geometry_pb2.Box(**dict(zip(("x_min", "y_min", "x_max", "y_max"), edges, strict=True)))


def drawing_request(**fields: Any) -> pb.DrawAnnotationsRequest:
    return pb.DrawAnnotationsRequest(**{"image": PICTURE, **fields})


async def drawn(client: Client, request: pb.DrawAnnotationsRequest) -> Image.Image:
    response = await client.embedding.DrawAnnotations(request, timeout=30)
    with Image.open(io.BytesIO(response.content)) as opened:
        assert Image.MIME[opened.format or ""] == response.media_type
        return opened.convert("RGB")


async def refusal(client: Client, request: pb.DrawAnnotationsRequest) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.embedding.DrawAnnotations(request, timeout=30)
    return from_rpc_error(caught.value, peer=Reason.EMBEDDING_UNAVAILABLE)


@pytest.mark.parametrize("media_type", ["", "image/png", "image/jpeg", "image/webp"])
async def test_boxes_and_thumbnails_are_drawn_in_each_format(
    client: Client, media_type: str
) -> None:
    thumbnail = pb.CaptionedPicture(content=encoded(photo(1)), lines=["1 · 0.98", "кошка.jpg"])
    picture = await drawn(
        client,
        drawing_request(
            annotations=[
                pb.Annotation(box=box(100, 100, 400, 300), lines=["shoes 0.93"], highlighted=True)
            ],
            beside=[thumbnail, pb.CaptionedPicture(lines=["2 · 0.90", "gone.jpg"])],
            media_type=media_type,
        ),
    )
    assert 640 < max(picture.size) <= 1280
    pixels = np.asarray(picture).astype(int)
    assert (np.abs(pixels - AMBER).max(axis=2) < 60).sum() > 2000


async def test_a_drawing_is_a_jpeg_by_default(client: Client) -> None:
    response = await client.embedding.DrawAnnotations(drawing_request(), timeout=30)
    assert response.media_type == "image/jpeg"


async def test_a_rotated_photo_is_drawn_upright_with_boxes_in_shown_pixels(
    client: Client,
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90 degrees clockwise
    turned = encoded(Image.new("RGB", (400, 200), "grey"), "JPEG", exif=exif)
    request = drawing_request(
        image=picture_pb2.ImageContent(content=turned),
        annotations=[pb.Annotation(box=box(20, 300, 180, 380), highlighted=True)],
    )
    picture = await drawn(client, request)
    assert picture.height == 2 * picture.width
    amber = np.argwhere(np.abs(np.asarray(picture).astype(int) - AMBER).max(axis=2) < 40)
    factor = picture.width / 200
    assert amber.min(axis=0) == pytest.approx(np.array([300, 20]) * factor, abs=4)
    assert amber.max(axis=0) == pytest.approx(np.array([380, 180]) * factor, abs=4)


INVALID_FIELDS: dict[str, list[dict[str, Any]]] = {
    "image.content": [{"image": picture_pb2.ImageContent()}],
    "media_type": [{"media_type": "image/gif"}, {"media_type": "png"}],
    "max_side_px": [{"max_side_px": side} for side in (-1, 63, 4097)],
    "annotations": [{"annotations": [pb.Annotation(box=box(0, 0, 9, 9))] * 201}],
    "annotations[0]": [
        {"annotations": [pb.Annotation()]},
        {"annotations": [pb.Annotation(box=box(0, 0, 9, float("inf")))]},
        {"annotations": [pb.Annotation(box=box(0, 0, 9, 1e9))]},
    ],
    "annotations[0].box": [
        {"annotations": [pb.Annotation(box=box(9, 0, 1, 9))]},
        {"annotations": [pb.Annotation(box=box(0, 0, float("nan"), 9))]},
    ],
    "annotations[0].corners": [
        {"annotations": [pb.Annotation(corners=geometry_pb2.Quadrilateral())]}
    ],
    "annotations[0].lines": [
        {"annotations": [pb.Annotation(box=box(0, 0, 9, 9), lines=["x"] * 21)]},
        {"annotations": [pb.Annotation(box=box(0, 0, 9, 9), lines=["x" * 5000])]},
    ],
    "beside": [{"beside": [pb.CaptionedPicture()] * 41}],
}


@pytest.mark.parametrize(
    ("field", "fields"),
    [(field, fields) for field, requests in INVALID_FIELDS.items() for fields in requests],
)
async def test_an_invalid_request_is_refused_with_its_field(
    client: Client, field: str, fields: dict[str, Any]
) -> None:
    error = await refusal(client, drawing_request(**fields))
    assert error.reason in {Reason.FIELD_INVALID, Reason.FIELD_REQUIRED}
    assert error.fields[0].field == field


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no picture", Reason.IMAGE_UNREADABLE),
        (png_header(60_000, 60_000), Reason.IMAGE_TOO_LARGE),
        (encoded(photo(0))[:2000], Reason.IMAGE_TRUNCATED),
    ],
)
async def test_an_unreadable_picture_is_refused_and_an_unreadable_thumbnail_leaves_its_frame_empty(
    client: Client, content: bytes, reason: Reason
) -> None:
    image = picture_pb2.ImageContent(content=content)
    assert (await refusal(client, drawing_request(image=image))).reason is reason
    beside = [pb.CaptionedPicture(content=content, lines=["1 · 0.5", "broken"])]
    assert max((await drawn(client, drawing_request(beside=beside))).size) <= 1280


async def test_concurrent_drawings_are_deterministic(client: Client) -> None:
    labels = ["shoes 0.93", "обувь", "أحذية", "รองเท้า", "鞋"]
    requests = [
        drawing_request(
            annotations=[pb.Annotation(box=box(9, 9, 300, 300), lines=[labels[row % 5], str(row)])],
            max_side_px=320,
        )
        for row in range(24)
    ]
    files = await asyncio.gather(
        *(client.embedding.DrawAnnotations(request, timeout=60) for request in requests)
    )
    again = await asyncio.gather(
        *(client.embedding.DrawAnnotations(request, timeout=60) for request in requests)
    )
    assert [file.content for file in files] == [file.content for file in again]
