"""Decoding of pictures in the process of a test, without the processes of the cage."""

from __future__ import annotations

import asyncio

from imagesearch_services.embedding.pictures.opened_file import OpenedFile
from imagesearch_services.embedding.pictures.picture import Picture
from imagesearch_services.embedding.pictures.picture_file import PictureFile


class InProcessDecoder:
    """Opens and decodes pictures in threads of the test."""

    async def open(self, content: bytes) -> OpenedFile:
        return await asyncio.to_thread(opened, content)

    async def decode(self, file: OpenedFile, reduction: float) -> Picture:
        return await asyncio.to_thread(lambda: PictureFile(file.content).decode(reduction))


def opened(content: bytes) -> OpenedFile:
    """Return a picture file with its header read."""
    file = PictureFile(content)
    return OpenedFile(
        content=content,
        media_type=file.media_type,
        width=file.width,
        height=file.height,
        is_sideways=file.shown_size != (file.width, file.height),
        decoding_bytes=file.decoding_bytes,
    )
