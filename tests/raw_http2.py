"""A client that breaks the rules of HTTP/2 which libraries keep.

It sends half of a message, never reads a response, opens any number of streams, and sends headers
of any bytes.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable
from typing import Self

from hpack import Decoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SETTING, MAX_STREAMS_SETTING = 4, 3
DEFAULT_WINDOW_BYTES = 65_535
FRAME_BYTES = 16_384

Header = tuple[bytes, bytes]


class RawConnection:
    """A connection to a gRPC server without TLS.

    Args:
        target: "host:port".
        window_bytes: bytes of each response that the server may send; no more are ever allowed.
    """

    def __init__(self, target: str, *, window_bytes: int = DEFAULT_WINDOW_BYTES) -> None:
        host, _, port = target.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._decoder = Decoder()
        self._received = b""
        self._next_stream = 1
        self._stream_window = DEFAULT_WINDOW_BYTES
        self._connection_window = DEFAULT_WINDOW_BYTES
        self._windows: dict[int, int] = {}
        self.max_streams = 0
        """Maximum concurrent streams that the server announced; 0: none yet."""
        self.headers: dict[int, dict[bytes, bytes]] = {}
        """Response headers and trailers by stream."""
        self.resets: dict[int, int] = {}
        """Error codes of the streams that the server reset."""
        self.received_bytes: dict[int, int] = {}
        """Bytes of response messages by stream."""
        self.is_closed = False
        settings = struct.pack(">HI", INITIAL_WINDOW_SETTING, window_bytes)
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        """Local port."""
        port: int = self._socket.getsockname()[1]
        return port

    def open(self, path: str, headers: Iterable[Header] = (), *, end: bool = False) -> int:
        """Send the headers of a call. Returns the stream."""
        stream = self._next_stream
        self._next_stream += 2
        self._windows[stream] = self._stream_window
        block = b"".join(
            literal(name, value)
            for name, value in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", path.encode()),
                (b":authority", b"localhost"),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                *headers,
            )
        )
        parts = [block[at : at + FRAME_BYTES] for at in range(0, len(block), FRAME_BYTES)]
        frames = b""
        for number, part in enumerate(parts):
            flags = END_HEADERS if number == len(parts) - 1 else 0
            if number == 0:
                frames += frame(HEADERS, flags | (END_STREAM if end else 0), stream, part)
            else:
                frames += frame(CONTINUATION, flags, stream, part)
        self._send(frames)
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False, timeout_s: float = 5.0) -> int:
        """Send data as the server allows it. Returns the number of bytes sent in time."""
        sent = 0
        deadline_s = time.monotonic() + timeout_s
        while sent < len(data) and time.monotonic() < deadline_s and not self.is_closed:
            size = min(
                self._windows.get(stream, 0), self._connection_window, FRAME_BYTES, len(data) - sent
            )
            if size <= 0:
                if stream in self.resets or b"grpc-status" in self.headers.get(stream, {}):
                    break
                self.poll(0.05)
                continue
            is_last = end and sent + size == len(data)
            self._send(frame(DATA, END_STREAM if is_last else 0, stream, data[sent : sent + size]))
            self._windows[stream] -= size
            self._connection_window -= size
            sent += size
        return sent

    def poll(self, timeout_s: float = 0.0) -> None:
        """Read and process what the server has sent, waiting for at most `timeout_s`."""
        self._socket.settimeout(max(timeout_s, 1e-3))
        try:
            data = self._socket.recv(1 << 20)
        except TimeoutError:
            return
        except OSError:
            data = b""
        self._socket.settimeout(10)
        if not data:
            self.is_closed = True
            return
        self._received += data
        while len(self._received) >= 9:
            size = int.from_bytes(self._received[:3])
            if len(self._received) < 9 + size:
                return
            kind, flags, stream = struct.unpack(">BBI", self._received[3:9])
            payload, self._received = self._received[9 : 9 + size], self._received[9 + size :]
            self._process(kind, flags, stream, payload)

    def ping(self) -> None:
        """Send a ping."""
        self._send(frame(PING, 0, 0, b"12345678"))

    def status(self, stream: int, timeout_s: float = 10.0) -> int | None:
        """Wait for the gRPC status code of a call; None if the server sent none in time."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            status = self.headers.get(stream, {}).get(b"grpc-status")
            if status is not None:
                return int(status)
            if self.is_closed or stream in self.resets:
                return None
            self.poll(0.05)
        return None

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait until the server closes the connection. Returns whether it did."""
        deadline_s = time.monotonic() + timeout_s
        while not self.is_closed and time.monotonic() < deadline_s:
            self.poll(0.1)
        return self.is_closed

    def _process(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in {SETTINGS, PING} and flags & ACK:
            return
        process = {
            SETTINGS: self._process_settings,
            PING: self._process_ping,
            WINDOW_UPDATE: self._process_window,
            HEADERS: self._process_headers,
            RST_STREAM: self._process_reset,
            DATA: self._process_data,
        }.get(kind)
        if process is not None:
            process(stream, payload)

    def _process_settings(self, _: int, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == INITIAL_WINDOW_SETTING:
                for opened in self._windows:
                    self._windows[opened] += value - self._stream_window
                self._stream_window = value
            elif name == MAX_STREAMS_SETTING:
                self.max_streams = value
        self._send(frame(SETTINGS, ACK, 0, b""))

    def _process_ping(self, _: int, payload: bytes) -> None:
        self._send(frame(PING, ACK, 0, payload))

    def _process_window(self, stream: int, payload: bytes) -> None:
        (size,) = struct.unpack(">I", payload)
        if stream:
            self._windows[stream] = self._windows.get(stream, 0) + size
        else:
            self._connection_window += size

    def _process_headers(self, stream: int, payload: bytes) -> None:
        headers = self.headers.setdefault(stream, {})
        for name, value in self._decoder.decode(payload, raw=True):
            headers[bytes(name)] = bytes(value)

    def _process_reset(self, stream: int, payload: bytes) -> None:
        (self.resets[stream],) = struct.unpack(">I", payload)

    def _process_data(self, stream: int, payload: bytes) -> None:
        self.received_bytes[stream] = self.received_bytes.get(stream, 0) + len(payload)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            self.is_closed = True


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame of RFC 9113, section 4.1."""
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


def message(data: bytes, *, declared_bytes: int | None = None) -> bytes:
    """Return a gRPC message, or the start of one that declares more bytes."""
    size = len(data) if declared_bytes is None else declared_bytes
    return struct.pack(">BI", 0, size) + data


def literal(name: bytes, value: bytes) -> bytes:
    """Return a header field that is not indexed, of RFC 7541, section 6.2.2."""
    return b"\x00" + _length(len(name)) + name + _length(len(value)) + value


def _length(value: int) -> bytes:
    """Return an integer with a prefix of seven bits, of RFC 7541, section 5.1."""
    if value < 127:
        return bytes([value])
    value -= 127
    encoded = b"\x7f"
    while value >= 128:
        encoded += bytes([value % 128 + 128])
        value //= 128
    return encoded + bytes([value])
