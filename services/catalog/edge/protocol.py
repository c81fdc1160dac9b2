"""Messages between the Catalog and its engine process.

A message is a pickle, preceded by its length. The parent sends `EdgeSettings`, then commands, which
are pairs of a name and arguments. The child answers all messages in order, each with a result (None
for the settings) or a `Failure`.

Pickles are safe here: both ends are the same program, and no other process can connect to the
socket, which has no name.
"""

from __future__ import annotations

import asyncio
import enum
import pickle
import struct
from typing import Any, BinaryIO, NamedTuple

HEADER = struct.Struct("<Q")
"""Length of the pickle that follows, in bytes."""


class FailureKind(enum.Enum):
    """Kind of a failed command."""

    FOLDER_LOCKED = enum.auto()
    DISK_FULL = enum.auto()
    NEWER_FORMAT = enum.auto()
    COLLECTION_DAMAGED = enum.auto()
    ENGINE_ERROR = enum.auto()


class Failure(NamedTuple):
    """Answer to a command that failed."""

    kind: FailureKind
    detail: str
    """Error message for the log; may contain internals of the engine."""


def encode(message: object) -> bytes:
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(body)) + body


def read(stream: BinaryIO) -> Any:
    """Read the next message.

    Raises:
        EOFError: the peer closed the connection or died.
    """
    (size,) = HEADER.unpack(_read_exactly(stream, HEADER.size))
    return pickle.loads(_read_exactly(stream, size))  # noqa: S301  # see above


async def read_async(reader: asyncio.StreamReader) -> Any:
    """Read the next message.

    Raises:
        EOFError: the peer closed the connection or died.
    """
    (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
    return pickle.loads(await reader.readexactly(size))  # noqa: S301  # see above


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data
