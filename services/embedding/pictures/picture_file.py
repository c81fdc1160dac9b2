"""Reads picture files with Pillow: checks the header, decodes the pixels, converts them to RGB.

Only the worker processes of the cage run this code on the files of callers.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image, ImageFile

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.pictures import costs, formats, limits, structure
from imagesearch_services.embedding.pictures.picture import REDUCTIONS, Picture
from imagesearch_services.embedding.pictures.rgb import SIDEWAYS, Pixels, write_rgb


class PictureFile:
    """A picture file with a valid header within the limits; its pixels are not decoded yet."""

    def __init__(self, content: bytes, *, is_checked: bool = False) -> None:
        """Read the header.

        Args:
            content: the file.
            is_checked: whether the header of this file was read before, within the limits.

        Raises:
            ServiceError: IMAGE_TOO_LARGE, IMAGE_TOO_SMALL, IMAGE_TOO_COSTLY, IMAGE_UNREADABLE or
                IMAGE_TRUNCATED.
        """
        limits.check_bytes(len(content))
        picture_format = formats.recognize(content)
        if picture_format is None:
            raise limits.unreadable(
                f"the file is not a picture in a supported format: {formats.NAMES}"
            )
        self.content = content
        self.media_type = picture_format.media_type
        self._format = picture_format
        self._readable = costs.readable(content, self.media_type)
        self._image = self._open()
        limits.check_size(*self._image.size)
        self.width, self.height = self._image.size
        """Size in pixels, before the orientation is applied."""
        self._scans = (
            1 if is_checked else costs.checked_scans(content, self.media_type, self.pixels)
        )

    @property
    def pixels(self) -> int:
        """Upper bound of the decoded pixels."""
        return self.width * self.height

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height as shown, by the EXIF orientation in the header, before decoding."""
        return self._shown_size(_orientation(self._image))

    @property
    def decoding_bytes(self) -> int:
        """Memory that decoding takes at full size, without the result in RGB."""
        return costs.decoding_bytes(self.media_type, self._image, self._scans)

    def decode(self, reduction: float = 1.0) -> Picture:
        """Decode the first frame into a new picture, see `decode_into`."""
        targets: list[Pixels] = []

        def allocate(height: int, width: int) -> Pixels:
            targets.append(np.empty((height, width, 3), np.uint8))
            return targets[0]

        width, height = self.decode_into(allocate, reduction)
        return Picture(Image.fromarray(targets[0]), width, height)

    def decode_into(
        self, allocate: Callable[[int, int], Pixels], reduction: float = 1.0
    ) -> tuple[int, int]:
        """Decode the first frame, upright, as RGB over white; may be called only once.

        A JPEG is decoded at a half, a quarter or an eighth of its sides if the reduction allows it,
        which takes a fraction of the time.

        Args:
            allocate: returns an array for the pixels of a height and width, uint8
                [height, width, 3].
            reduction: maximum factor by which the sides may be divided.

        Returns:
            Width and height as shown, in pixels, before the reduction.

        Raises:
            ServiceError: IMAGE_UNREADABLE, IMAGE_TRUNCATED or IMAGE_TOO_COSTLY.
        """
        image = self._image
        del self._image  # frees the pixels in their original mode and the decoder's memory
        try:
            factor = next((divisor for divisor in REDUCTIONS if divisor <= reduction), 1)
            if factor > 1:  # has an effect on JPEG only
                image.draft(None, (self.width // factor, self.height // factor))
            image.load()
            vars(image).pop("_decoder", None)  # WebP and AVIF keep their own copy of the pixels
            orientation = _orientation(image)
            is_sideways = orientation in SIDEWAYS
            target = allocate(*(image.size if is_sideways else image.size[::-1]))
            write_rgb(image, target, orientation)
        except Exception as error:
            raise self._broken(error) from error
        return self._shown_size(orientation)

    def _shown_size(self, orientation: int) -> tuple[int, int]:
        if orientation in SIDEWAYS:
            return self.height, self.width
        return self.width, self.height

    def _open(self) -> ImageFile.ImageFile:
        try:
            return self._format.open(io.BytesIO(self._readable))
        except Exception as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> ServiceError:
        """Return the ServiceError for an exception of Pillow, which may be of nearly any type."""
        if isinstance(error, ServiceError):
            return error
        if isinstance(error, MemoryError):
            return limits.too_costly(
                "decoding the picture takes more memory than its size allows",
                str(limits.MAX_DECODING_BYTES),
                "bytes",
            )
        if isinstance(error, Image.DecompressionBombError):
            return _too_many_pixels()
        if self._format.is_truncated(self.content):
            return ServiceError(Reason.IMAGE_TRUNCATED, "the picture file is truncated")
        return limits.unreadable(f"the {self._format.media_type} file is damaged")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if there is no readable orientation."""
    with contextlib.suppress(Exception):
        structure.check_exif(image.info.get("exif", b""))
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation in range(1, 9):
            return int(orientation)
    return 1


def _too_many_pixels() -> ServiceError:
    """Return the error for a picture that Pillow refused before it reported the size.

    Pillow refuses pictures of more than twice its limit.
    """
    min_pixels = 2 * (Image.MAX_IMAGE_PIXELS or math.inf)
    return limits.too_large(int(min_pixels), limits.MAX_PIXELS, "pixels")
