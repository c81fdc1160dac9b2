"""The limits of each task, and the checks of what a worker answers."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

from PIL import Image

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.embedding.cage.protocol import Message
from imagesearch_services.embedding.pictures import limits as picture_limits
from imagesearch_services.embedding.pictures.opened_file import OpenedFile

HEADER_MEMORY_BYTES = 64 * 1024 * 1024
"""Memory for a header, beyond copies of the file."""
EXPECTED_CPU_S, EXPECTED_PIXEL_CPU_NS = 0.1, 100.0
"""Processor time that honest pictures stay below: seconds for any, nanoseconds for each pixel."""
WALL_FACTOR, WALL_S = 10.0, 5.0
"""A task may take this many times its processor time, and this many seconds more."""

FAST_PIXELS = {"image/jpeg": 8_000_000}
"""Maximum pixels of a picture that is decoded in less than 0.1 s, by media type."""
OTHER_FAST_PIXELS = 2_500_000
"""The same for other media types."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Processor time that tasks may take."""

    header_cpu_s: float = 0.5
    """Seconds for a header; an honest one takes a millisecond."""
    decode_cpu_s: float = 0.5
    """Seconds for decoding any picture."""
    pixel_cpu_ns: float = 150
    """Nanoseconds more for each pixel."""

    def header_limits(self, content: bytes) -> Limits:
        memory_bytes = HEADER_MEMORY_BYTES + picture_limits.header_bytes(content) + 4 * len(content)
        return Limits(self.header_cpu_s, memory_bytes, EXPECTED_CPU_S)

    def decoding_limits(self, file: OpenedFile) -> Limits:
        cpu_s = self.decode_cpu_s + self.pixel_cpu_ns * file.pixels / 1e9
        expected_cpu_s = EXPECTED_CPU_S + EXPECTED_PIXEL_CPU_NS * file.pixels / 1e9
        return Limits(cpu_s, file.decoding_bytes + 4 * len(file.content), expected_cpu_s)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a task may take."""

    cpu_s: float
    memory_bytes: int
    expected_cpu_s: float
    """Processor time after which the task loses its place; an honest picture takes half of it."""

    @property
    def wall_s(self) -> float:
        return WALL_S + WALL_FACTOR * self.cpu_s

    def exceeded(self) -> ServiceError:
        """Return the error for a picture that has used up its processor time."""
        return picture_limits.too_costly(
            f"decoding takes more than {self.cpu_s:.2g} s of processor time, "
            "which is more than a picture of this size may take",
            f"{self.cpu_s:.2g}",
            "seconds",
        )


@dataclass(frozen=True, slots=True)
class Decoded:
    """The sizes of a decoded picture."""

    width: int
    """Width of the pixels."""
    height: int
    shown_width: int
    """Width as shown, before the reduction."""
    shown_height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def is_fast(file: OpenedFile) -> bool:
    """Return whether an honest picture of this size and type is decoded in less than 0.1 s."""
    return file.pixels <= FAST_PIXELS.get(file.media_type, OTHER_FAST_PIXELS)


def read_opened(answer: Message, content: bytes) -> OpenedFile:
    """Check the answer of a worker that has read a header; the picture may have forged it.

    Raises:
        ServiceError: IMAGE_UNREADABLE, IMAGE_TOO_LARGE or IMAGE_TOO_SMALL.
    """
    media_type = answer.get("media_type")
    width, height, decoding_bytes = _integers(answer, "width", "height", "decoding_bytes")
    if media_type not in picture_limits.BYTES_PER_PIXEL:
        raise _forged()
    picture_limits.check_size(width, height)
    return OpenedFile(
        content=content,
        media_type=str(media_type),
        width=width,
        height=height,
        is_sideways=answer.get("is_sideways") is True,
        decoding_bytes=min(max(decoding_bytes, width * height), picture_limits.MAX_DECODING_BYTES),
    )


def read_decoded(answer: Message, file: OpenedFile) -> Decoded:
    """Check the answer of a worker that has decoded a picture; the picture may have forged it.

    Raises:
        ServiceError: IMAGE_UNREADABLE.
    """
    decoded = Decoded(*_integers(answer, "width", "height", "shown_width", "shown_height"))
    shown = decoded.shown_width, decoded.shown_height
    if shown not in {(file.width, file.height), (file.height, file.width)}:
        raise _forged()
    if decoded.width > decoded.shown_width or decoded.height > decoded.shown_height:
        raise _forged()
    return decoded


def _integers(answer: Message, *names: str) -> list[int]:
    values = [answer.get(name) for name in names]
    if not all(type(value) is int and value > 0 for value in values):
        raise _forged()
    return [int(str(value)) for value in values]


def _forged() -> ServiceError:
    return picture_limits.unreadable("the picture file is damaged")


@cache
def probe() -> bytes:
    """Return a tiny picture file."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "teal").save(file, "PNG")
    return file.getvalue()
