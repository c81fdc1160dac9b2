"""Admission and validation of drawings, and decoding of their thumbnails."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest
from PIL import Image

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.drawing.drawer import Drawer, Request, ThumbnailFile
from imagesearch_services.embedding.runtime import Runtime
from tests.decoding import InProcessDecoder
from tests.pictures import photo

RED, BLUE = (230, 20, 20), (20, 20, 230)


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


PICTURE = encoded(photo(0, (200, 150)))


@asynccontextmanager
async def drawing(pixels: int = 50_000_000) -> AsyncIterator[tuple[Drawer, Runtime]]:
    runtime = Runtime(
        workers=1, pixel_budget=pixels, overload_retry_s=0.5, decoder=InProcessDecoder()
    )
    try:
        yield Drawer(runtime), runtime
    finally:
        runtime.close()


async def drawn(drawer: Drawer, *thumbnails: bytes, side_px: int = 640) -> np.ndarray:
    request = Request(
        PICTURE,
        thumbnails=[ThumbnailFile(content, ["1 · 0.98"]) for content in thumbnails],
        media_type="image/png",
        max_side_px=side_px,
    )
    return np.asarray(Image.open(io.BytesIO((await drawer.draw(request)).content))).astype(int)


async def test_thumbnails_count_toward_the_pixel_budget() -> None:
    async with drawing(3_000_000) as (drawer, runtime):
        budget = runtime.budget
        assert budget.try_take(1_500_000)
        await drawn(drawer)
        with pytest.raises(ServiceError) as caught:
            await drawn(drawer, PICTURE)
        assert caught.value.reason is Reason.OVERLOADED
        budget.give_back(1_500_000)
        await drawn(drawer, PICTURE)
        assert budget.free == budget.pixels


async def test_an_unreadable_picture_is_refused_while_all_workers_are_busy() -> None:
    async with drawing() as (drawer, runtime):
        done = threading.Event()
        call = runtime.start_call()
        busy = [asyncio.create_task(lane.run(done.wait)) for lane in (call.short, call.long)]
        try:
            with pytest.raises(ServiceError) as caught:
                async with asyncio.timeout(10):
                    await drawer.draw(Request(b"no picture"))
            assert caught.value.reason is Reason.IMAGE_UNREADABLE
        finally:
            done.set()
            await asyncio.gather(*busy)


@pytest.mark.parametrize("size", [(60, 30), (240, 120), (1000, 500)])
async def test_exif_orientation_is_applied_to_thumbnails_of_any_size(size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated clockwise by 90 degrees
    halves = Image.new("RGB", size, RED)
    halves.paste(BLUE, (size[0] // 2, 0, *size))
    async with drawing() as (drawer, _):
        pixels = await drawn(drawer, encoded(halves, exif=exif))
    red, blue = (np.argwhere(np.abs(pixels - color).max(axis=2) < 30) for color in (RED, BLUE))
    assert abs(len(red) - len(blue)) < 0.1 * len(red)
    assert red[:, 0].max() < blue[:, 0].min()
    height = blue[:, 0].max() - red[:, 0].min()
    assert height == pytest.approx(2 * np.ptp(red[:, 1]), rel=0.08)


async def test_a_damaged_thumbnail_leaves_its_frame_empty() -> None:
    whole = encoded(photo(1, (240, 320)))
    damaged = whole[:400] + whole[-2:]
    async with drawing() as (drawer, _):
        empty = await drawn(drawer, b"")
        assert empty.shape == (await drawn(drawer, whole[:40])).shape
        assert max((await drawn(drawer, damaged)).shape) <= 640
