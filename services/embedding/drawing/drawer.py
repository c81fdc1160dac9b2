"""Draws for callers: within limits, within the pixel budget, in threads."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from imagesearch_services.common.errors import ServiceError, field_error, missing_field
from imagesearch_services.embedding.admission import CallAdmission, PixelBudget
from imagesearch_services.embedding.drawing import text
from imagesearch_services.embedding.drawing.drawing import (
    Annotation,
    CaptionedPicture,
    SmallPicture,
    draw,
)
from imagesearch_services.embedding.drawing.encoding import MEDIA_TYPES, encode
from imagesearch_services.embedding.drawing.text import Pixels
from imagesearch_services.embedding.pictures import PictureFile
from imagesearch_services.embedding.workers import Workers

DEFAULT_MEDIA_TYPE = "image/jpeg"
DEFAULT_SIDE_PX = 1280
JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
REDUCED = (
    (8, cv2.IMREAD_REDUCED_COLOR_8),
    (4, cv2.IMREAD_REDUCED_COLOR_4),
    (2, cv2.IMREAD_REDUCED_COLOR_2),
)
"""By what OpenCV divides the sides of a JPEG while it decodes, and what it calls that."""
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
        # Of its own, so that a refusal never waits behind other drawings.
        self._header_reader = Workers(1, "drawing-headers")

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
        file = await self._header_reader.run(PictureFile, request.content)
        admission = CallAdmission(self._budget, retry_after_s=self._overload_retry_s)
        # Of those beside it, one after another is decoded.
        small_pixels = MAX_SMALL_PIXELS if request.beside else 0
        async with admission.admit(file.pixels + 2 * side_px**2 + small_pixels):
            # One turn in a thread: changing threads costs more than small pictures take.
            content = await self._workers.run(_drawn, file, request, side_px, media_type)
            return Drawing(content, media_type)

    def close(self) -> None:
        self._workers.close()
        self._header_reader.close()


def _drawn(file: PictureFile, request: Request, side_px: int, media_type: str) -> bytes:
    picture = file.decode(max(1.0, max(file.width, file.height) / side_px))
    beside = [CaptionedPicture(_small(each.content), each.lines) for each in request.beside]
    return encode(draw(picture, request.annotations, beside, side_px), media_type)


def _small(content: bytes) -> SmallPicture | None:
    """Read the header of a small picture; what is none leaves its frame empty."""
    if not content:
        return None
    try:
        file = PictureFile(content)
    except ServiceError:
        return None
    if file.pixels > MAX_SMALL_PIXELS:
        return None
    return SmallPicture(*file.shown_size, partial(_decoded, file))


def _decoded(file: PictureFile, reduction: float) -> Pixels | None:
    content = file.content
    if content.startswith(JPEG_START) and content.endswith(JPEG_END):
        # The libraries' own small pictures: OpenCV turns them, too, in half of the time.
        return _decoded_jpeg(content, reduction)
    try:
        return np.asarray(file.decode(reduction).image)
    except ServiceError:
        return None


def _decoded_jpeg(content: bytes, reduction: float) -> Pixels | None:
    flag = next((flag for least, flag in REDUCED if reduction >= least), cv2.IMREAD_COLOR)
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error:
        return None
    return None if pixels is None else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


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
