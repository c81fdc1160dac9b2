"""From a file's bytes to pixels: what is refused by its header, and what every mode becomes."""

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
from imagesearch_services.embedding import formats

MAX_BYTES = 10 * 1024 * 1024
MAX_PIXELS = 50_000_000
MIN_SIDE_PX = 16

MAX_JPEG_SCANS = 64
"""Encoders write about ten. Each costs a pass over the whole picture, whatever its bytes."""

MAX_TIFF_STRIPS = 100_000
"""Encoders make strips of many rows or tiles of many pixels: some thousands at 50 megapixels."""

REDUCTIONS = (8, 4, 2)
"""Divisors of both sides that a JPEG can be decoded at for less than the whole."""

SHARPNESS_SIDE_PX = 512
"""Long side at which sharpness is measured."""

WHITE = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, upright."""

    image: Image.Image
    """Mode RGB; smaller than the picture as shown where it was decoded at a reduction."""
    width: int
    """As shown, pixels."""
    height: int
    """As shown, pixels."""

    @property
    def x_scale(self) -> float:
        """Pixels of `image` for each pixel of the picture as shown."""
        return self.image.width / self.width

    @property
    def y_scale(self) -> float:
        return self.image.height / self.height


class PictureFile:
    """A file whose header was read and found within the limits; nothing is decoded yet."""

    def __init__(self, content: bytes) -> None:
        """Read the header.

        Raises:
            ServiceError: IMAGE_TOO_LARGE, IMAGE_TOO_SMALL, IMAGE_UNREADABLE or IMAGE_TRUNCATED.
        """
        if len(content) > MAX_BYTES:
            raise _too_large(len(content), MAX_BYTES, "bytes")
        known = formats.recognise(content)
        if known is None:
            raise _unreadable(f"the bytes are no picture: {formats.NAMES} is expected")
        self.content = content
        self._format = known
        if known.media_type == "image/tiff" and formats.tiff_strip_count(content) > MAX_TIFF_STRIPS:
            raise _unreadable(f"the TIFF has more than {MAX_TIFF_STRIPS:,} strips")
        self._image = self._open()
        _check_size(*self._image.size)
        if (
            self._image.info.get("progressive")
            and formats.jpeg_scan_count(content) > MAX_JPEG_SCANS
        ):
            raise _unreadable(f"the JPEG has more than {MAX_JPEG_SCANS} scans")
        self.width, self.height = self._image.size
        """Pixels, before turning."""

    @property
    def pixels(self) -> int:
        """How many pixels decoding holds, at most."""
        return self.width * self.height

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height as shown, as far as the header tells; ask before decoding."""
        if _turn(self._image) in SIDEWAYS:
            return self.height, self.width
        return self.width, self.height

    def decode(self, reduction: float = 1.0) -> Picture:
        """Decode the first frame, upright, as RGB over white. Call it once.

        A JPEG may come out smaller, at a half, a quarter or an eighth of its sides, which takes a
        fraction of the time.

        Args:
            reduction: by what the sides may be divided at most without harm to what follows.

        Raises:
            ServiceError: IMAGE_UNREADABLE or IMAGE_TRUNCATED.
        """
        image = self._image
        del self._image  # it holds the pixels of its own mode and the decoder's memory
        try:
            factor = next((each for each in REDUCTIONS if each <= reduction), 1)
            if factor > 1:  # does nothing for other formats than JPEG
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
        """Tell of the file and its decoded picture."""
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
        """Say what Pillow's exception means: it raises nearly every type there is."""
        if isinstance(error, MemoryError):
            raise error  # our fault, not the picture's
        if isinstance(error, Image.DecompressionBombError):
            return _too_many_pixels()
        if self._format.ends_early(self.content):
            return ServiceError(Reason.IMAGE_TRUNCATED, "the picture ends too early")
        return _unreadable(f"the {self._format.media_type} picture is damaged")


SIDEWAYS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)

ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF 2.32, tag 274: how the stored picture must be turned to be upright."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded picture of any mode to RGB, its transparency over white."""
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
    """Variance of the Laplacian (4 neighbours) of the grey picture at 512 px long side.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    factor = SHARPNESS_SIDE_PX / max(image.size)
    size = (max(3, round(image.width * factor)), max(3, round(image.height * factor)))
    # Averages what it shrinks and interpolates what it enlarges, faster than Pillow does.
    small = cv2.resize(np.asarray(image.convert("L")), size, interpolation=cv2.INTER_AREA)
    grey = small.astype(np.int16)
    laplacian = (
        grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    )
    return float(laplacian.var(dtype=np.float64))


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    """Bring grey levels of more than eight bits into eight; Pillow itself would cut them off.

    Sixteen-bit levels keep their scale. Whole numbers of 32 bits and floats have none of their
    own: 0 … 1 (floats), 0 … 255 and 0 … 65,535 are recognised by the largest value, anything else
    is stretched from its smallest value to its largest.
    """
    levels: npt.NDArray[Any] = np.asarray(image)
    if image.mode.startswith("I;16"):
        grey = (levels >> 8).astype(np.uint8)
    else:
        values = np.nan_to_num(levels.astype(np.float32), posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        ceilings = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        ceiling = next((each for each in ceilings if low >= 0.0 and high <= each), None)
        floor, ceiling = (low, high) if ceiling is None else (0.0, ceiling)
        grey = np.rint((values - floor) * (255.0 / ((ceiling - floor) or 1.0))).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[levels == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return how to turn a loaded picture upright; EXIF that can't be read turns nothing."""
    with contextlib.suppress(Exception):
        return ORIENTATIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return None


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(width * height, MAX_PIXELS, "pixels")
    if min(width, height) < MIN_SIDE_PX:
        raise ServiceError(
            Reason.IMAGE_TOO_SMALL,
            f"the picture is {width} × {height} pixels; "
            f"its shorter side must have at least {MIN_SIDE_PX}",
            metadata={
                "limit": str(MIN_SIDE_PX),
                "actual": str(min(width, height)),
                "unit": "pixels",
            },
        )


def _too_large(actual: int, limit: int, unit: str) -> ServiceError:
    return ServiceError(
        Reason.IMAGE_TOO_LARGE,
        f"the picture has {actual:,} {unit}; at most {limit:,} are taken",
        metadata={"limit": str(limit), "actual": str(actual), "unit": unit},
    )


def _too_many_pixels() -> ServiceError:
    """Say that Pillow refused a size that it did not tell: it is over twice Pillow's own limit."""
    least = 2 * (Image.MAX_IMAGE_PIXELS or math.inf)
    return _too_large(int(least), MAX_PIXELS, "pixels")


def _unreadable(message: str) -> ServiceError:
    return ServiceError(Reason.IMAGE_UNREADABLE, message)
