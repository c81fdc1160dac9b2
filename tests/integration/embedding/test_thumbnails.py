"""EmbedImages with thumbnails on a real Triton."""

from __future__ import annotations

import io

import grpc
import pytest
from PIL import Image

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.type.v1 import geometry_pb2, picture_pb2
from imagesearch_services.common.errors import Reason
from imagesearch_services.common.status import from_rpc_error
from tests.integration.embedding.harness import Client
from tests.pictures import encoded, photo

SPACES = ["sscd@1"]


def item(content: bytes, **fields: object) -> pb.EmbedImageItem:
    return pb.EmbedImageItem(image=picture_pb2.ImageContent(content=content), **fields)


async def test_each_picture_has_its_own_thumbnail(client: Client) -> None:
    region = geometry_pb2.Box(x_min=0, y_min=0, x_max=100, y_max=400)
    response = await client.embedding.EmbedImages(
        pb.EmbedImagesRequest(
            items=[
                item(encoded(photo(1, (2400, 1200)))),
                item(b"no picture"),
                item(encoded(photo(2, (300, 600)), "PNG"), regions=[region]),
            ],
            spaces=SPACES,
            thumbnail_max_side_px=320,
        ),
        timeout=60,
    )
    wide, broken, tall = response.results
    assert Image.open(io.BytesIO(wide.thumbnail)).size == (320, 160)
    assert broken.HasField("error")
    assert not broken.thumbnail
    # The thumbnail shows the whole picture even if only a part is embedded.
    assert Image.open(io.BytesIO(tall.thumbnail)).size == (160, 320)


async def test_no_thumbnail_is_made_unless_requested(client: Client) -> None:
    request = pb.EmbedImagesRequest(items=[item(encoded(photo(1)))], spaces=SPACES)
    response = await client.embedding.EmbedImages(request, timeout=60)
    assert response.results[0].thumbnail == b""


async def test_a_picture_is_decoded_large_enough_for_its_thumbnail(client: Client) -> None:
    """The models alone would need only 640 pixels here."""
    response = await client.embedding.EmbedImages(
        pb.EmbedImagesRequest(
            items=[item(encoded(photo(1, (2560, 2560))))],
            spaces=SPACES,
            thumbnail_max_side_px=1000,
        ),
        timeout=60,
    )
    assert Image.open(io.BytesIO(response.results[0].thumbnail)).size == (1000, 1000)


@pytest.mark.parametrize("side", [-1, 15, 1025])
async def test_an_invalid_size_is_refused(client: Client, side: int) -> None:
    request = pb.EmbedImagesRequest(
        items=[item(encoded(photo(1)))], spaces=SPACES, thumbnail_max_side_px=side
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.embedding.EmbedImages(request, timeout=30)
    error = from_rpc_error(caught.value, peer=Reason.EMBEDDING_UNAVAILABLE)
    assert error.reason is Reason.FIELD_INVALID
    assert error.metadata == {"field": "thumbnail_max_side_px"}
