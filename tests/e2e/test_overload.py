"""More calls than the suite can answer: the excess is refused at once, the rest are answered."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc.aio

from imagesearch.gateway.v1 import image_pb2, search_pb2
from imagesearch.type.v1 import picture_pb2
from imagesearch_services.common.errors import Reason
from tests.e2e.conftest import Stub
from tests.e2e.errors import described
from tests.pictures import encoded, photo

CALLS = 100


async def test_excess_calls_are_refused_with_a_delay_and_the_suite_recovers(
    async_gateway: Stub, library: str
) -> None:
    picture = picture_pb2.ImageContent(content=encoded(photo(3)))
    await async_gateway.AddImage(
        image_pb2.AddImageRequest(parent=library, image_id="stored", image=picture)
    )
    search = search_pb2.SearchImagesRequest(parent=library, image=picture)
    get = image_pb2.GetImageRequest(name=f"{library}/images/stored")
    outcomes: Counter[str] = Counter()

    async def ask() -> None:
        try:
            answer = await async_gateway.SearchImages(search, timeout=60)
        except grpc.aio.AioRpcError as error:
            refusal = described(error)
            assert refusal.reason is Reason.OVERLOADED
            assert refusal.retry_after_s
            outcomes["refused"] += 1
        else:
            assert answer.matches[0].image.image_id == "stored"
            outcomes["answered"] += 1

    async def read() -> None:
        await async_gateway.GetImage(get, timeout=60)

    async with asyncio.TaskGroup() as calls:
        for _ in range(CALLS):
            calls.create_task(ask())
        for _ in range(CALLS):  # calls without a picture are not refused because of searches
            calls.create_task(read())
    assert outcomes.total() == CALLS
    assert outcomes["answered"] >= 2
    assert outcomes["refused"] >= CALLS // 2

    answered = outcomes["answered"]
    await ask()
    assert outcomes["answered"] == answered + 1
