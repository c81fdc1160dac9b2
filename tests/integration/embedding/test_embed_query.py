"""EmbedQuery on a real Triton: the same embeddings as EmbedImages, in steps."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio
import pytest
from PIL import Image

from imagesearch.embedding.v1 import embedding_service_pb2 as pb
from imagesearch.type.v1 import picture_pb2
from imagesearch_services.common.errors import Reason
from imagesearch_services.common.status import from_rpc_error
from tests.integration.embedding.harness import Client
from tests.pictures import encoded, photo

COPY = "sscd@1"
WHOLE = pb.EmbedQueryRequest(spaces=[COPY])
REGIONS = pb.EmbedQueryRequest(spaces=[COPY], max_proposed_regions=24)


def pasted(size: tuple[int, int]) -> Image.Image:
    host = photo(15, size)
    host.paste(photo(3).resize((size[0] // 3, size[1] // 3)), (size[0] // 2, size[1] // 8))
    return host


def with_image(request: pb.EmbedQueryRequest, content: bytes) -> pb.EmbedQueryRequest:
    copy = pb.EmbedQueryRequest()
    copy.CopyFrom(request)
    copy.image.content = content
    return copy


async def in_steps(
    client: Client, content: bytes, steps: Sequence[pb.EmbedQueryRequest]
) -> list[pb.EmbedQueryResponse]:
    stream = client.embedding.EmbedQuery(timeout=60)
    responses = []
    for row, step in enumerate(steps):
        await stream.write(step if row else with_image(step, content))
        response = await stream.read()
        assert isinstance(response, pb.EmbedQueryResponse)
        responses.append(response)
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    return responses


async def at_once(client: Client, content: bytes, max_proposed_regions: int) -> pb.EmbedImageResult:
    item = pb.EmbedImageItem(
        image=picture_pb2.ImageContent(content=content), max_proposed_regions=max_proposed_regions
    )
    request = pb.EmbedImagesRequest(items=[item], spaces=[COPY])
    response: pb.EmbedImagesResponse = await client.embedding.EmbedImages(request, timeout=60)
    return response.results[0]


@pytest.mark.parametrize("size", [(1000, 800), (2400, 1800)], ids=["one decode", "two decodes"])
async def test_steps_return_the_same_embeddings_as_separate_calls(
    client: Client, size: tuple[int, int]
) -> None:
    content = encoded(pasted(size), "JPEG", quality=90)
    whole, regions = await in_steps(client, content, [WHOLE, REGIONS])
    assert whole.result == await at_once(client, content, 0)
    separate = await at_once(client, content, 24)
    assert list(regions.result.regions) == list(separate.regions)
    assert len(regions.result.regions) > 1
    assert regions.result.info == whole.result.info
    assert {"decode", "infer", "total"} <= {timing.step for timing in regions.timings}


async def test_a_stream_may_end_after_the_first_step(client: Client) -> None:
    (whole,) = await in_steps(client, encoded(photo(2), "JPEG"), [WHOLE])
    assert len(whole.result.regions) == 1


async def test_an_unreadable_picture_ends_the_stream_with_its_error(client: Client) -> None:
    stream = client.embedding.EmbedQuery(timeout=60)
    await stream.write(with_image(WHOLE, b"not a picture"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    error = from_rpc_error(caught.value, peer=Reason.EMBEDDING_UNAVAILABLE)
    assert error.reason is Reason.IMAGE_UNREADABLE
