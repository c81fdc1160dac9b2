"""Reads picture files: checks the header, decodes the pixels and converts them to RGB."""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import PictureInfo
from imagesearch_services.embedding.pictures import formats

MAX_BYTES = 10 * 1024 * 1024
"""Maximum size of a picture file, in bytes."""
MAX_PIXELS = 50_000_000
"""Maximum pixels of a picture."""
MIN_SIDE_PX = 16
"""Minimum shorter side of a picture, in pixels."""

MAX_JPEG_SCANS = 64
"""Maximum scans of a progressive JPEG. Encoders write about ten; a scan of a few bytes, too, costs
a pass over the whole picture."""

MAX_TIFF_STRIPS = 100_000
"""Maximum strips or tiles of a TIFF. Encoders write a few thousand for 50 megapixels."""

REDUCTIONS = (8, 4, 2)
"""Divisors of both sides at which a JPEG can be decoded, faster than at full size."""

SHARPNESS_SIDE_PX = 512
"""Long side at which sharpness is measured, in pixels."""

WHITE = (255, 255, 255)
"""Color behind transparent pixels."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, upright."""

    image: Image.Image
    """Mode RGB; smaller than the picture as shown if it was decoded at a reduction."""
    width: int
    """Width as shown, in pixels."""
    height: int
    """Height as shown, in pixels."""

    @property
    def x_scale(self) -> float:
        """Pixels of `image` for each pixel of the picture as shown, horizontally."""
        return self.image.width / self.width

    @property
    def y_scale(self) -> float:
        return self.image.height / self.height


class PictureFile:
    """A picture file with a valid header within the limits; its pixels are not decoded yet."""

    def __init__(self, content: bytes) -> None:
        """Read the header.

        Raises:
            ServiceError: IMAGE_TOO_LARGE, IMAGE_TOO_SMALL, IMAGE_UNREADABLE or IMAGE_TRUNCATED.
        """
        if len(content) > MAX_BYTES:
            raise _too_large(len(content), MAX_BYTES, "bytes")
        picture_format = formats.recognize(content)
        if picture_format is None:
            raise _unreadable(f"the file is not a picture in a supported format: {formats.NAMES}")
        self.content = content
        self._format = picture_format
        if (
            picture_format.media_type == "image/tiff"
            and formats.tiff_strip_count(content) > MAX_TIFF_STRIPS
        ):
            raise _unreadable(f"the TIFF has more than {MAX_TIFF_STRIPS:,} strips or tiles")
        self._image = self._open()
        _check_size(*self._image.size)
        if (
            self._image.info.get("progressive")
            and formats.jpeg_scan_count(content) > MAX_JPEG_SCANS
        ):
            raise _unreadable(f"the JPEG has more than {MAX_JPEG_SCANS} scans")
        self.width, self.height = self._image.size
        """Size in pixels, before the orientation is applied."""

    @property
    def pixels(self) -> int:
        """Upper bound of the decoded pixels."""
        return self.width * self.height

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height as shown, by the EXIF orientation in the header, before decoding."""
        if _turn(self._image) in SIDEWAYS:
            return self.height, self.width
        return self.width, self.height

    def decode(self, reduction: float = 1.0) -> Picture:
        """Decode the first frame, upright, as RGB over white; may be called only once.

        A JPEG is decoded at a half, a quarter or an eighth of its sides if the reduction allows it,
        which takes a fraction of the time.

        Args:
            reduction: maximum factor by which the sides may be divided.

        Raises:
            ServiceError: IMAGE_UNREADABLE or IMAGE_TRUNCATED.
        """
        image = self._image
        del self._image  # frees the pixels in their original mode and the decoder's memory
        try:
            factor = next((divisor for divisor in REDUCTIONS if divisor <= reduction), 1)
            if factor > 1:  # has an effect on JPEG only
                image.draft(None, (self.width // factor, self.height // factor))
            image.load()
            turn = _turn(image)
            rgb = to_rgb(image)
        except Exception as error:
            raise self._broken(error) from error
        if turn is None:
            return Picture(rgb, self.width, self.height)
        turned = rgb.transpose(turn)
        if turn in SIDEWAYS:
            return Picture(turned, self.height, self.width)
        return Picture(turned, self.width, self.height)

    def describe(self, picture: Picture) -> PictureInfo:
        """Return the properties of the file and its decoded picture."""
        return PictureInfo(
            width=picture.width,
            height=picture.height,
            size_bytes=len(self.content),
            sha256=hashlib.sha256(self.content).hexdigest(),
            media_type=self._format.media_type,
            sharpness=sharpness(picture.image),
        )

    def _open(self) -> ImageFile.ImageFile:
        try:
            return self._format.open(io.BytesIO(self.content))
        except Exception as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> ServiceError:
        """Return the ServiceError for an exception of Pillow, which may be of nearly any type."""
        if isinstance(error, MemoryError):
            raise error  # an internal error, not a fault of the picture
        if isinstance(error, Image.DecompressionBombError):
            return _too_many_pixels()
        if self._format.is_truncated(self.content):
            return ServiceError(Reason.IMAGE_TRUNCATED, "the picture file is truncated")
        return _unreadable(f"the {self._format.media_type} file is damaged")


SIDEWAYS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
"""Transpositions that exchange width and height."""

ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that makes a stored picture upright, by EXIF orientation (EXIF 2.32, tag 274)."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded picture of any mode to RGB, with transparency over white."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return _grey_to_rgb(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return rgba.convert("RGB")
    flat = Image.new("RGB", rgba.size, WHITE)
    flat.paste(rgba, mask=alpha)
    return flat


def sharpness(image: Image.Image) -> float:
    """Return the variance of the Laplacian (4 neighbors) of the grey picture at 512 px long side.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    factor = SHARPNESS_SIDE_PX / max(image.size)
    size = (max(3, round(image.width * factor)), max(3, round(image.height * factor)))
    # INTER_AREA averages when it reduces, interpolates when it enlarges, and is faster than Pillow.
    resized = cv2.resize(np.asarray(image.convert("L")), size, interpolation=cv2.INTER_AREA)
    grey = resized.astype(np.int16)
    laplacian = (
        grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    )
    return float(laplacian.var(dtype=np.float64))


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    """Convert grey levels of more than eight bits to RGB, which Pillow would clip.

    Sixteen-bit levels keep their scale. 32-bit integers and floats have no defined range: the
    ranges 0 to 1 (floats), 0 to 255 and 0 to 65,535 are recognized by the largest value; any other
    range is mapped from its smallest and largest value to 0 and 255.
    """
    levels: npt.NDArray[Any] = np.asarray(image)
    if image.mode.startswith("I;16"):
        grey = (levels >> 8).astype(np.uint8)
    else:
        values = np.nan_to_num(levels.astype(np.float32), posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        ceilings = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        ceiling = next((limit for limit in ceilings if low >= 0.0 and high <= limit), None)
        floor, ceiling = (low, high) if ceiling is None else (0.0, ceiling)
        grey = np.rint((values - floor) * (255.0 / ((ceiling - floor) or 1.0))).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[levels == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return the transposition that makes a picture upright.

    Returns None if the picture is upright or has no readable EXIF orientation.
    """
    with contextlib.suppress(Exception):
        return ORIENTATIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return None


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(width * height, MAX_PIXELS, "pixels")
    if min(width, height) < MIN_SIDE_PX:
        raise ServiceError(
            Reason.IMAGE_TOO_SMALL,
            f"the picture has {width} × {height} pixels; "
            f"its shorter side must have at least {MIN_SIDE_PX} pixels",
            metadata={
                "limit": str(MIN_SIDE_PX),
                "actual": str(min(width, height)),
                "unit": "pixels",
            },
        )


def _too_large(actual: int, limit: int, unit: str) -> ServiceError:
    return ServiceError(
        Reason.IMAGE_TOO_LARGE,
        f"the picture has {actual:,} {unit}; the maximum is {limit:,}",
        metadata={"limit": str(limit), "actual": str(actual), "unit": unit},
    )


def _too_many_pixels() -> ServiceError:
    """Return the error for a picture that Pillow refused before it reported the size.

    Pillow refuses pictures of more than twice its limit.
    """
    min_pixels = 2 * (Image.MAX_IMAGE_PIXELS or math.inf)
    return _too_large(int(min_pixels), MAX_PIXELS, "pixels")


def _unreadable(message: str) -> ServiceError:
    return ServiceError(Reason.IMAGE_UNREADABLE, message)
