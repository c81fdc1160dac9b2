"""Callers that behave badly: hostile pictures, half-sent calls, answers that nobody reads."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from PIL import Image

from imagesearch.gateway.v1 import image_search_service_pb2_grpc as gateway_grpc
from imagesearch.gateway.v1 import search_pb2
from imagesearch.type.v1 import picture_pb2
from tests.faults.overload.traffic import SERVICE
from tests.pictures import encoded, photo, png_header

HELD_S = 3.0
"""Time for which a bad caller holds its connection, in seconds."""


def hostile_pictures() -> list[bytes]:
    """Return small files that claim, or are, something else than a plain picture."""
    jpeg = encoded(photo(1))
    long_rows = b"\x01\x01\x00\x00" * 16 + b"\x00\x01"
    palette = b"".join(bytes([value, value, value, 0]) for value in range(256))
    start = 14 + 40 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, 300_000, 16, 1, 8, 1, len(long_rows), 1, 1, 256, 256)
    bitmap = b"BM" + struct.pack("<IHHI", start + len(long_rows), 0, 0, start)
    return [
        png_header(100_000, 100_000),
        jpeg[: len(jpeg) // 2],
        bytes(range(256)) * 40,
        b"",
        jpeg[:200] + bytes(2000) + jpeg[200:],
        bitmap + info + palette + long_rows,
        encoded(Image.new("RGB", (15, 4000), "red"), "PNG"),
        encoded(Image.new("RGB", (6000, 16), "red"), "PNG"),
        encoded(Image.new("L", (7000, 7000), 3), "PNG"),
    ]


async def half_sent_call(target: str) -> None:
    """Begin a call with a picture, send no message, and go away."""

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.sleep(HELD_S)
        yield b""

    async with grpc.aio.insecure_channel(target) as channel:
        call: Any = channel.stream_unary(f"/{SERVICE}/SearchImages")(nothing(), timeout=2 * HELD_S)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(call), HELD_S / 2)
        call.cancel()


async def half_sent_bytes(target: str) -> None:
    """Send the beginning of an HTTP/2 connection, or noise, and go away."""
    host, _, port = target.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    with contextlib.suppress(ConnectionError):
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        writer.write(preface[: random.randrange(len(preface))])  # noqa: S311  # no secret
        await writer.drain()
        await asyncio.sleep(HELD_S)
    writer.close()


async def cancelled_search(target: str, library: str, picture: bytes) -> None:
    """Begin a search and cancel it while it runs."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = gateway_grpc.ImageSearchServiceStub(channel)
        call = stub.SearchImages(
            search_pb2.SearchImagesRequest(
                parent=library, image=picture_pb2.ImageContent(content=picture)
            ),
            timeout=30,
        )
        await asyncio.sleep(random.uniform(0, 0.2))  # noqa: S311  # no secret
        call.cancel()


async def unread_duplicates(target: str, library: str) -> None:
    """Begin a stream of duplicates, read nothing, and go away."""
    async with grpc.aio.insecure_channel(target) as channel:
        stub = gateway_grpc.ImageSearchServiceStub(channel)
        call = stub.FindDuplicates(search_pb2.FindDuplicatesRequest(parent=library), timeout=30)
        await asyncio.sleep(HELD_S)
        call.cancel()


HOSTILE = itertools.cycle(hostile_pictures())
