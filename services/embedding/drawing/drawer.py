"""Validates drawing requests and renders them within the pixel budget, in worker threads."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from imagesearch_services.common.errors import ServiceError, field_error, missing_field
from imagesearch_services.embedding.drawing import fonts
from imagesearch_services.embedding.drawing.encoding import MEDIA_TYPES, encode
from imagesearch_services.embedding.drawing.fonts import Pixels
from imagesearch_services.embedding.drawing.rendering import (
    Annotation,
    CaptionedThumbnail,
    Thumbnail,
    render,
)
from imagesearch_services.embedding.pictures.picture_file import PictureFile
from imagesearch_services.embedding.runtime import Runtime

DEFAULT_MEDIA_TYPE = "image/jpeg"
DEFAULT_SIDE_PX = 1280
JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
REDUCED_DECODING = (
    (8, cv2.IMREAD_REDUCED_COLOR_8),
    (4, cv2.IMREAD_REDUCED_COLOR_4),
    (2, cv2.IMREAD_REDUCED_COLOR_2),
)
"""Factors by which OpenCV can divide the sides of a JPEG while decoding, and their flags."""
SIDES_PX = range(64, 4096 + 1)
"""Allowed maximum sides of a drawing."""

MAX_ANNOTATIONS = 200
"""Maximum annotations per drawing."""
MAX_THUMBNAILS = 40
"""Maximum thumbnails per drawing."""
MAX_THUMBNAIL_PIXELS = 1_000_000
"""Maximum pixels of a thumbnail; a larger thumbnail leaves its frame empty."""
MAX_LINES = 20
"""Maximum lines of a label or a caption."""
MAX_LINE_BYTES = 4096
"""Maximum length of a line, in bytes of UTF-8."""
MAX_CORNER_PX = 1e6
"""Upper bound of a corner's absolute coordinates, in pixels; outlines are clipped to the picture.
"""


@dataclass(frozen=True, slots=True)
class ThumbnailFile:
    """An encoded thumbnail to draw next to the picture, and its caption."""

    content: bytes
    """The file. If it is empty, unreadable or larger than `MAX_THUMBNAIL_PIXELS`, an empty frame is
    drawn."""
    lines: Sequence[str] = ()
    """Lines of the caption."""


@dataclass(frozen=True, slots=True)
class Request:
    """A picture to draw, with its annotations and thumbnails."""

    content: bytes
    """The picture file."""
    annotations: Sequence[Annotation] = ()
    thumbnails: Sequence[ThumbnailFile] = ()
    media_type: str = ""
    """Media type of the drawing, one of `MEDIA_TYPES`; empty: JPEG, which is encoded fastest."""
    max_side_px: int = 0
    """Maximum width and height of the drawing, 64 to 4,096; 0: 1,280."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """An encoded drawing."""

    content: bytes
    media_type: str


class Drawer:
    """Draws annotated pictures."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def start(self) -> None:
        """Load the fonts before the first call needs them."""
        self._warming_up = asyncio.create_task(self._runtime.start_call().long.run(fonts.warm_up))

    async def draw(self, request: Request) -> Drawing:
        """Draw a picture. An unreadable thumbnail leaves its frame empty.

        Raises:
            ServiceError: FIELD_REQUIRED, FIELD_INVALID, OVERLOADED, or an IMAGE_… reason if the
                picture cannot be read.
        """
        _validate(request)
        media_type = request.media_type or DEFAULT_MEDIA_TYPE
        side_px = request.max_side_px or DEFAULT_SIDE_PX
        file = await self._runtime.read_header(request.content)
        call = self._runtime.start_call()
        # Thumbnails are decoded one after the other, so the budget counts only one of them.
        thumbnail_pixels = MAX_THUMBNAIL_PIXELS if request.thumbnails else 0
        async with call.admit(file.pixels + 2 * side_px**2 + thumbnail_pixels):
            # One task for all thumbnails: switching threads costs more than decoding a thumbnail.
            content = await call.long.run(_render, file, request, side_px, media_type)
            return Drawing(content, media_type)


def _render(file: PictureFile, request: Request, side_px: int, media_type: str) -> bytes:
    picture = file.decode(max(1.0, max(file.width, file.height) / side_px))
    captioned = [
        CaptionedThumbnail(_thumbnail(thumbnail.content), thumbnail.lines)
        for thumbnail in request.thumbnails
    ]
    return encode(render(picture, request.annotations, captioned, side_px), media_type)


def _thumbnail(content: bytes) -> Thumbnail | None:
    """Read the header of a thumbnail; None if it is unreadable or too large."""
    if not content:
        return None
    try:
        file = PictureFile(content)
    except ServiceError:
        return None
    if file.pixels > MAX_THUMBNAIL_PIXELS:
        return None
    return Thumbnail(*file.shown_size, partial(_decode, file))


def _decode(file: PictureFile, reduction: float) -> Pixels | None:
    """Decode with the sides divided by at most `reduction`; None if the file is damaged."""
    content = file.content
    if content.startswith(JPEG_START) and content.endswith(JPEG_END):
        # Libraries store their thumbnails as JPEG. OpenCV decodes JPEG in half of Pillow's time and
        # also applies the EXIF orientation.
        return _decode_jpeg(content, reduction)
    try:
        return np.asarray(file.decode(reduction).image)
    except ServiceError:
        return None


def _decode_jpeg(content: bytes, reduction: float) -> Pixels | None:
    flag = next(
        (flag for factor, flag in REDUCED_DECODING if reduction >= factor), cv2.IMREAD_COLOR
    )
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    except cv2.error:
        return None
    return None if pixels is None else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def _validate(request: Request) -> None:
    if not request.content:
        raise missing_field("image.content")
    if request.media_type and request.media_type not in MEDIA_TYPES:
        raise field_error(
            "media_type", f"is {request.media_type!r}; must be one of {', '.join(MEDIA_TYPES)}"
        )
    if request.max_side_px and request.max_side_px not in SIDES_PX:
        raise field_error(
            "max_side_px",
            f"is {request.max_side_px}; must be 0, or {SIDES_PX[0]} to {SIDES_PX[-1]:,}",
        )
    _validate_lines("annotations", [item.lines for item in request.annotations], MAX_ANNOTATIONS)
    _validate_lines("beside", [item.lines for item in request.thumbnails], MAX_THUMBNAILS)
    for index, annotation in enumerate(request.annotations):
        for x, y in annotation.points:
            if not (math.isfinite(x) and math.isfinite(y) and max(abs(x), abs(y)) < MAX_CORNER_PX):
                raise field_error(
                    f"annotations[{index}]",
                    f"corners must be finite and within ±{MAX_CORNER_PX:,.0f} pixels",
                )


def _validate_lines(field: str, items: Sequence[Sequence[str]], max_items: int) -> None:
    """Check the number of items, and the number and lengths of their lines."""
    if len(items) > max_items:
        raise field_error(field, f"has {len(items)} items; the maximum is {max_items}")
    for index, lines in enumerate(items):
        name = f"{field}[{index}].lines"
        if len(lines) > MAX_LINES:
            raise field_error(name, f"has {len(lines)} lines; the maximum is {MAX_LINES}")
        if any(len(line.encode()) > MAX_LINE_BYTES for line in lines):
            raise field_error(name, f"has a line longer than {MAX_LINE_BYTES:,} bytes of UTF-8")
