"""Validates drawing requests and renders them within the pixel budget, in worker threads."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imagesearch_services.common.concurrency import both, together
from imagesearch_services.common.errors import ServiceError, field_error, missing_field
from imagesearch_services.embedding.drawing import fonts
from imagesearch_services.embedding.drawing.encoding import MEDIA_TYPES, encode
from imagesearch_services.embedding.drawing.rendering import (
    Annotation,
    CaptionedThumbnail,
    Thumbnail,
    render,
    thumbnail_reductions,
)
from imagesearch_services.embedding.embed.items import PICTURE_ERRORS
from imagesearch_services.embedding.pictures.opened_file import OpenedFile
from imagesearch_services.embedding.runtime import Call, Runtime

DEFAULT_MEDIA_TYPE = "image/jpeg"
DEFAULT_SIDE_PX = 1280
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
        call = self._runtime.start_call()
        file = await call.open(request.content)
        thumbnails = await together(
            _open_thumbnail(call, thumbnail.content) for thumbnail in request.thumbnails
        )
        thumbnail_pixels = max(
            MAX_THUMBNAIL_PIXELS if thumbnails else 0,
            sum(thumbnail.pixels for thumbnail in thumbnails if thumbnail),
        )
        async with call.admit(file.budget_pixels + 2 * side_px**2 + thumbnail_pixels):
            max_reduction = max(1.0, max(file.width, file.height) / side_px)
            picture, captioned = await both(
                call.decode(file, max_reduction),
                _captioned(call, file, thumbnails, request, side_px),
            )
            content = await call.long.run(
                lambda: encode(render(picture, request.annotations, captioned, side_px), media_type)
            )
            return Drawing(content, media_type)


async def _open_thumbnail(call: Call, content: bytes) -> OpenedFile | None:
    """Read the header of a thumbnail; None if it is unreadable or too large."""
    if not content:
        return None
    try:
        file = await call.open(content)
    except ServiceError as error:
        if error.reason not in PICTURE_ERRORS:
            raise
        return None
    return file if file.pixels <= MAX_THUMBNAIL_PIXELS else None


async def _captioned(
    call: Call,
    file: OpenedFile,
    thumbnails: Sequence[OpenedFile | None],
    request: Request,
    side_px: int,
) -> list[CaptionedThumbnail]:
    """Decode the thumbnails that have a frame in the drawing, at the size of their frames."""
    if not thumbnails:
        return []
    undecoded = [
        CaptionedThumbnail(
            None if thumbnail is None else Thumbnail(*thumbnail.shown_size), item.lines
        )
        for thumbnail, item in zip(thumbnails, request.thumbnails, strict=True)
    ]
    reductions = await call.long.run(thumbnail_reductions, file.shown_size, undecoded, side_px)
    shown = await together(
        _decoded(call, thumbnail, reduction)
        for thumbnail, reduction in zip(thumbnails, reductions, strict=False)
    )
    captioned = [
        CaptionedThumbnail(thumbnail, item.lines)
        for thumbnail, item in zip(shown, request.thumbnails, strict=False)
    ]
    return captioned + undecoded[len(captioned) :]


async def _decoded(call: Call, file: OpenedFile | None, reduction: float) -> Thumbnail | None:
    """Decode a thumbnail with the sides divided by at most `reduction`."""
    if file is None:
        return None
    try:
        picture = await call.decode(file, reduction)
    except ServiceError as error:
        if error.reason not in PICTURE_ERRORS:
            raise
        return Thumbnail(*file.shown_size)
    return Thumbnail(picture.width, picture.height, np.asarray(picture.image))


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
