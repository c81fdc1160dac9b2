"""Sockets of the server's connections, by the address of the peer: "10.0.0.7:5000".

gRPC for Python can neither tell how many bytes of an incomplete message have arrived nor cancel a
response that the caller does not read. The kernel can: TCP_INFO counts the bytes received, and
shutting down the socket ends the connection and frees what gRPC holds for it.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

_BYTES_RECEIVED_AT = 128
"""Offset of `tcpi_bytes_received` in `struct tcp_info` of <linux/tcp.h>, since Linux 4.1."""
_TCP_INFO_BYTES = 192


class Connections:
    """Accepted connections of a server in this process.

    Args:
        port: local port of the server.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._files: dict[str, int] = {}

    def received_bytes(self, peer: str) -> int | None:
        """Return the bytes that the kernel has received from a peer; None if unknown."""
        with self._opened(peer) as connection:
            if connection is None:
                return None
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        if len(info) < _BYTES_RECEIVED_AT + 8:
            return None
        (count,) = struct.unpack_from("=Q", info, _BYTES_RECEIVED_AT)
        return int(count)

    def close(self, peer: str) -> bool:
        """End the connection of a peer. Returns whether it was open."""
        with self._opened(peer) as connection:
            if connection is None:
                return False
            connection.shutdown(socket.SHUT_RDWR)
            return True

    def refresh(self) -> None:
        """Find the open connections. Takes about 5 µs for each open file."""
        self._files = {}
        for path in Path("/proc/self/fd").iterdir():
            file = int(path.name)
            peer = self._peer_of(file)
            if peer:
                self._files[peer] = file

    def is_open(self, peer: str) -> bool:
        """Return whether the last `refresh` found a connection of a peer."""
        return peer in self._files

    def peers(self) -> list[str]:
        """Return the peers that the last `refresh` found."""
        return list(self._files)

    @contextmanager
    def _opened(self, peer: str) -> Iterator[socket.socket | None]:
        """Open a second descriptor of the socket of a peer, so that gRPC can't close it."""
        file = self._files.get(peer)
        connection = None if file is None else _duplicate(file)
        try:
            if connection is not None and self._peer_name(connection) == peer:
                yield connection
            else:
                self._files.pop(peer, None)
                yield None
        except OSError:
            # The peer closed the connection meanwhile.
            self._files.pop(peer, None)
        finally:
            if connection is not None:
                connection.close()

    def _peer_of(self, file: int) -> str | None:
        connection = _duplicate(file)
        if connection is None:
            return None
        with connection:
            return self._peer_name(connection)

    def _peer_name(self, connection: socket.socket) -> str | None:
        try:
            if connection.getsockname()[1] != self._port:
                return None
            host, port = connection.getpeername()[:2]
        except (OSError, IndexError):
            return None
        return f"{host.removeprefix('::ffff:')}:{port}"


def address(peer: str) -> str:
    """Return the address of a peer as gRPC writes it, such as "ipv4:10.0.0.7:5000"."""
    name = unquote(peer).partition(":")[2]
    return name.replace("[", "").replace("]", "").removeprefix("::ffff:")


def host(peer: str) -> str:
    """Return the host of an address."""
    return peer.rpartition(":")[0]


def _duplicate(file: int) -> socket.socket | None:
    try:
        duplicate = os.dup(file)
    except OSError:
        return None
    try:
        return socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        return None
