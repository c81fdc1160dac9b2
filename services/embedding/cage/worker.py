"""The loop of a worker process: opens and decodes one picture at a time."""

from __future__ import annotations

import ctypes
import mmap
import socket

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.embedding.cage.confinement import TaskLimits
from imagesearch_services.embedding.cage.protocol import (
    MAX_MESSAGE_BYTES,
    Message,
    error_message,
    pack,
    pixels_in,
    unpack,
)
from imagesearch_services.embedding.pictures.limits import too_costly
from imagesearch_services.embedding.pictures.picture_file import PictureFile
from imagesearch_services.embedding.pictures.rgb import Pixels

LARGE_TASK_BYTES = 32_000_000
"""Memory of a task after which freed memory is returned to the operating system."""


def work(connection: socket.socket, memory: mmap.mmap, limits: TaskLimits) -> None:
    """Answer requests until the service closes the connection."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while packet := connection.recv(MAX_MESSAGE_BYTES):
        request = unpack(packet)
        limits.begin(cpu_s=request["cpu_s"], memory_bytes=request["memory_bytes"])
        answer = _answer(request, memory)
        limits.end()
        connection.send(pack(answer))
        if trim is not None and request["memory_bytes"] > LARGE_TASK_BYTES:
            trim(0)


def _answer(request: Message, memory: mmap.mmap) -> Message:
    try:
        is_decoding = request["task"] == "decode"
        file = PictureFile(memory[: request["size"]], is_checked=is_decoding)
        return _decode(file, request["reduction"], memory) if is_decoding else _describe(file)
    except ServiceError as error:
        return error_message(error)
    except MemoryError:
        memory_bytes = request["memory_bytes"]
        return error_message(
            too_costly("the picture takes too much memory", str(memory_bytes), "bytes")
        )


def _describe(file: PictureFile) -> Message:
    return {
        "media_type": file.media_type,
        "width": file.width,
        "height": file.height,
        "is_sideways": file.shown_size != (file.width, file.height),
        "decoding_bytes": file.decoding_bytes,
    }


def _decode(file: PictureFile, reduction: float, memory: mmap.mmap) -> Message:
    sizes: list[tuple[int, int]] = []

    def allocate(height: int, width: int) -> Pixels:
        sizes.append((height, width))
        return pixels_in(memory, height, width)

    shown_width, shown_height = file.decode_into(allocate, reduction)
    ((height, width),) = sizes
    return {
        "width": width,
        "height": height,
        "shown_width": shown_width,
        "shown_height": shown_height,
    }
