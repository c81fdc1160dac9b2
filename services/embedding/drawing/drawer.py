"""Draws for callers: within limits, within the pixel budget, in threads."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from imagesearch_services.common.errors import ServiceError, field_error, missing_field
from imagesearch_services.embedding.admission import CallAdmission, PixelBudget
from imagesearch_services.embedding.drawing import text
from imagesearch_services.embedding.drawing.drawing import Annotation, CaptionedPicture, draw
from imagesearch_services.embedding.drawing.encoding import MEDIA_TYPES, encode
from imagesearch_services.embedding.drawing.text import Pixels
from imagesearch_services.embedding.pictures import PictureFile
from imagesearch_services.embedding.workers import Workers

DEFAULT_MEDIA_TYPE = "image/jpeg"
DEFAULT_SIDE_PX = 1280
JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
SIDES_PX = range(64, 4096 + 1)

MAX_ANNOTATIONS = 200
MAX_BESIDE = 40
MAX_SMALL_PIXELS = 1_000_000
MAX_LINES = 20
MAX_LINE_BYTES = 4096
MAX_CORNER_PX = 1e6
"""Far outside of any picture; what is drawn is clipped to it anyway."""


@dataclass(frozen=True, slots=True)
class Small:
    """A small picture to set beside, and the words under it."""

    content: bytes
    """The file; empty, no picture or a large one draws an empty frame."""
    lines: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What to draw."""

    content: bytes
    annotations: Sequence[Annotation] = ()
    beside: Sequence[Small] = ()
    media_type: str = ""
    """One of MEDIA_TYPES; empty: JPEG, which costs least."""
    max_side_px: int = 0
    """64 to 4,096; 0: 1,280."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A file."""

    content: bytes
    media_type: str


class Drawer:
    """Draws annotations on pictures."""

    def __init__(self, budget: PixelBudget, *, workers: int, overload_retry_s: float) -> None:
        """Set up the threads.

        Args:
            budget: pixels that may be in work at once, shared with whoever else decodes.
            workers: threads that draw.
            overload_retry_s: when a refused caller is told to come back.
        """
        self._budget = budget
        self._overload_retry_s = overload_retry_s
        self._workers = Workers(workers, "drawing")

    def start(self) -> None:
        """Find the fonts before the first caller waits for them."""
        self._warming_up = asyncio.ensure_future(self._workers.run(text.warm_up))

    async def draw(self, request: Request) -> Drawing:
        """Draw one picture.

        Raises:
            ServiceError: FIELD_REQUIRED, FIELD_INVALID, OVERLOADED, or what is wrong with the
                picture. A small picture at fault only leaves its frame empty.
        """
        _validate(request)
        media_type = request.media_type or DEFAULT_MEDIA_TYPE
        side_px = request.max_side_px or DEFAULT_SIDE_PX
        file = await self._workers.run(PictureFile, request.content)
        admission = CallAdmission(self._budget, retry_after_s=self._overload_retry_s)
        async with admission.admit(file.pixels + 2 * side_px**2):
            # One turn in a thread: changing threads costs more than small pictures take.
            content = await self._workers.run(_drawn, file, request, side_px, media_type)
            return Drawing(content, media_type)

    def close(self) -> None:
        self._workers.close()


def _drawn(file: PictureFile, request: Request, side_px: int, media_type: str) -> bytes:
    picture = file.decode(max(1.0, max(file.width, file.height) / side_px))
    beside = _decode_small(request.beside)
    return encode(draw(picture, request.annotations, beside, side_px), media_type)


def _decode_small(beside: Sequence[Small]) -> list[CaptionedPicture]:
    return [CaptionedPicture(_decoded(each.content), each.lines) for each in beside]


def _decoded(content: bytes) -> Pixels | None:
    """Decode a small picture; what is none leaves its frame empty, and the drawing whole."""
    if not content:
        return None
    try:
        file = PictureFile(content)
        if file.pixels > MAX_SMALL_PIXELS:
            return None
        if content.startswith(JPEG_START) and content.endswith(JPEG_END):
            # The libraries' own small pictures: OpenCV turns them, too, in half of the time.
            return _decoded_jpeg(content)
        return np.asarray(file.decode().image)
    except ServiceError:
        return None


def _decoded_jpeg(content: bytes) -> Pixels | None:
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error:
        return None
    return None if pixels is None else np.asarray(pixels, np.uint8)


def _validate(request: Request) -> None:
    if not request.content:
        raise missing_field("image.content")
    if request.media_type and request.media_type not in MEDIA_TYPES:
        raise field_error("media_type", f"must be one of {', '.join(MEDIA_TYPES)}")
    if request.max_side_px and request.max_side_px not in SIDES_PX:
        raise field_error("max_side_px", f"must be {SIDES_PX[0]} to {SIDES_PX[-1]:,}, or 0")
    _validate_lines("annotations", [each.lines for each in request.annotations], MAX_ANNOTATIONS)
    _validate_lines("beside", [each.lines for each in request.beside], MAX_BESIDE)
    for index, annotation in enumerate(request.annotations):
        for x, y in annotation.points:
            if not (math.isfinite(x) and math.isfinite(y) and max(abs(x), abs(y)) < MAX_CORNER_PX):
                raise field_error(f"annotations[{index}]", "its corners must lie near the picture")


def _validate_lines(field: str, items: Sequence[Sequence[str]], most: int) -> None:
    """Check how many items there are and what each says."""
    if len(items) > most:
        raise field_error(field, f"has {len(items)} items; at most {most} are taken")
    for index, lines in enumerate(items):
        name = f"{field}[{index}].lines"
        if len(lines) > MAX_LINES:
            raise field_error(name, f"has {len(lines)} lines; at most {MAX_LINES} are taken")
        if any(len(line.encode()) > MAX_LINE_BYTES for line in lines):
            raise field_error(name, f"has a line of more than {MAX_LINE_BYTES} bytes of UTF-8")
