"""The messages between the service, the zygote and the workers, and the memory they share.

Messages are JSON in packets of a Unix socket. The file and the pixels travel in shared memory: the
file at its start, the pixels behind it.
"""

from __future__ import annotations

import json
import mmap
import socket
from typing import Any

import numpy as np

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.pictures.limits import MAX_BYTES, MAX_PIXELS, unreadable
from imagesearch_services.embedding.pictures.rgb import Pixels

MAX_MESSAGE_BYTES = 4096
"""Maximum size of a message."""
PIXELS_AT = MAX_BYTES
"""Position of the pixels in the shared memory, in bytes; a multiple of the page size."""
MEMORY_BYTES = PIXELS_AT + 3 * MAX_PIXELS
"""Size of the shared memory of a worker, in bytes. Only pages that were written take memory."""

FORK = b"fork"
"""Request to the zygote; it comes with the descriptors of a worker's socket and memory."""

ERRORS = {
    Reason.IMAGE_TOO_LARGE,
    Reason.IMAGE_TOO_SMALL,
    Reason.IMAGE_TOO_COSTLY,
    Reason.IMAGE_UNREADABLE,
    Reason.IMAGE_TRUNCATED,
}
"""Reasons of the errors that a worker may return."""

Message = dict[str, Any]


def pack(message: Message) -> bytes:
    return json.dumps(message).encode()


def unpack(packet: bytes) -> Message:
    """Read a message.

    Raises:
        ValueError: the packet is not a message.
    """
    message = json.loads(packet)
    if not isinstance(message, dict):
        raise ValueError("not a message")  # noqa: TRY004  # one error for all malformed packets
    return message


def error_message(error: ServiceError) -> Message:
    return {"error": error.reason, "message": error.message, "metadata": error.metadata}


def read_error(message: Message) -> ServiceError:
    """Read the error of a worker, which may be forged by the picture."""
    reason, text, metadata = (message.get(key) for key in ("error", "message", "metadata"))
    if reason not in ERRORS or not isinstance(text, str) or not isinstance(metadata, dict):
        return unreadable("the picture file is damaged")
    return ServiceError(
        Reason(reason),
        text,
        metadata={str(key): str(value) for key, value in metadata.items()},
    )


def pixels_in(memory: mmap.mmap, height: int, width: int) -> Pixels:
    """Return the pixels in shared memory, uint8 RGB [height, width, 3]."""
    count = 3 * height * width
    return np.frombuffer(memory, np.uint8, count, PIXELS_AT).reshape(height, width, 3)


def packet_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets that keep the boundaries of messages."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
