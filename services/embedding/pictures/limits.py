"""Limits of picture files, and the errors for files that exceed them."""

from __future__ import annotations

from imagesearch_services.common.errors import Reason, ServiceError

MAX_BYTES = 10 * 1024 * 1024
"""Maximum size of a picture file, in bytes."""
MAX_PIXELS = 50_000_000
"""Maximum pixels of a picture."""
MIN_SIDE_PX = 16
"""Minimum shorter side of a picture, in pixels."""

MAX_DECODING_BYTES = 850_000_000
"""Upper bound of the memory that decoding a picture takes, without the result in RGB."""

BYTES_PER_PIXEL = {
    "image/jpeg": 4,
    "image/png": 6,
    "image/webp": 16,
    "image/gif": 9,
    "image/bmp": 6,
    "image/tiff": 12,
    "image/avif": 17,
}
"""Memory that decoding takes for each pixel, in bytes, by media type: the pixels in Pillow (1 to 4
bytes) and the buffers of the decoder."""

WEBP_HEADER_BYTES = 8 * MAX_PIXELS
"""Address space that Pillow allocates when it reads the header of a WebP: two pictures of 4 bytes a
pixel. Only pages that decoding writes take memory."""


def header_bytes(content: bytes) -> int:
    """Return the address space that reading a header takes, beyond small objects."""
    return WEBP_HEADER_BYTES if content[8:12] == b"WEBP" else 0


def check_bytes(size: int) -> None:
    """Check the size of a file.

    Raises:
        ServiceError: IMAGE_TOO_LARGE.
    """
    if size > MAX_BYTES:
        raise too_large(size, MAX_BYTES, "bytes")


def check_size(width: int, height: int) -> None:
    """Check the size of a picture, in pixels.

    Raises:
        ServiceError: IMAGE_TOO_LARGE, IMAGE_TOO_SMALL.
    """
    if width * height > MAX_PIXELS:
        raise too_large(width * height, MAX_PIXELS, "pixels")
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


def too_large(actual: int, limit: int, unit: str) -> ServiceError:
    """Return the error for a picture with more bytes or pixels than the limit."""
    return ServiceError(
        Reason.IMAGE_TOO_LARGE,
        f"the picture has {actual:,} {unit}; the maximum is {limit:,}",
        metadata={"limit": str(limit), "actual": str(actual), "unit": unit},
    )


def too_costly(message: str, limit: str, unit: str) -> ServiceError:
    """Return the error for a picture that costs more to decode than a picture of its size may."""
    return ServiceError(Reason.IMAGE_TOO_COSTLY, message, metadata={"limit": limit, "unit": unit})


def unreadable(message: str) -> ServiceError:
    """Return the error for a file that is damaged or no picture."""
    return ServiceError(Reason.IMAGE_UNREADABLE, message)
