"""Messages between the Catalog and its engine process."""

from __future__ import annotations

import asyncio
import io

import pytest

from imagesearch_services.catalog.edge.protocol import encode, read, read_async

MESSAGES = [None, ("ping", ()), ("upsert", ("name", [b"\0" * 100_000]))]


def test_messages_are_read_one_by_one() -> None:
    stream = io.BytesIO(b"".join(map(encode, MESSAGES)))
    assert [read(stream) for _ in MESSAGES] == MESSAGES
    with pytest.raises(EOFError):
        read(stream)


async def test_both_readers_read_the_same_messages() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"".join(map(encode, MESSAGES)))
    reader.feed_eof()
    assert [await read_async(reader) for _ in MESSAGES] == MESSAGES
    with pytest.raises(EOFError):
        await read_async(reader)


@pytest.mark.parametrize("size", [3, 8, 20])
async def test_a_truncated_message_raises_end_of_file(size: int) -> None:
    data = encode(MESSAGES[2])[:size]
    with pytest.raises(EOFError):
        read(io.BytesIO(data))
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    with pytest.raises(EOFError):
        await read_async(reader)
