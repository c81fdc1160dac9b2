"""Bounds what a picture costs to decode, by cheap checks of its file and header.

A file of a few kilobytes may declare structures that cost a decoder seconds or gigabytes. The
checks here refuse such files before anything is decoded; files that pass them are decoded under the
limits of the cage.
"""

from __future__ import annotations

from PIL import ImageFile

from imagesearch_services.embedding.pictures import formats, limits, structure

MAX_JPEG_SCANS = 64
"""Maximum scans of a JPEG. Encoders write about ten; a scan of a few bytes, too, costs a pass over
the whole picture."""

MAX_TIFF_STRIPS = 100_000
"""Maximum strips or tiles of a TIFF. Encoders write a few thousand for 50 megapixels."""

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

STRUCTURE_CHECKS = {
    "image/jpeg": structure.check_jpeg,
    "image/gif": structure.check_gif,
    "image/tiff": structure.check_tiff,
    "image/avif": structure.check_avif,
}
"""Checks of a file before its header is parsed, by media type."""

COEFFICIENT_BYTES = 2
"""Memory of a coefficient of a JPEG with several scans, which are all kept until the last scan."""


def readable(content: bytes, media_type: str) -> bytes:
    """Check a file before its header is parsed, and return what the parser is to read.

    Raises:
        ServiceError: IMAGE_TOO_COSTLY.
    """
    if media_type == "image/png":
        return structure.without_texts(content)
    if media_type == "image/tiff" and formats.tiff_strip_count(content) > MAX_TIFF_STRIPS:
        raise limits.too_costly(
            f"the TIFF has more than {MAX_TIFF_STRIPS:,} strips or tiles",
            str(MAX_TIFF_STRIPS),
            "strips",
        )
    if (check := STRUCTURE_CHECKS.get(media_type)) is not None:
        check(content)
    return content


def check_scans(content: bytes, media_type: str) -> None:
    """Check the number of scans of a JPEG.

    Raises:
        ServiceError: IMAGE_TOO_COSTLY.
    """
    if media_type == "image/jpeg" and formats.jpeg_scan_count(content) > MAX_JPEG_SCANS:
        raise limits.too_costly(
            f"the JPEG has more than {MAX_JPEG_SCANS} scans", str(MAX_JPEG_SCANS), "scans"
        )


def decoding_bytes(content: bytes, media_type: str, image: ImageFile.ImageFile) -> int:
    """Return the memory that decoding takes at full size, without the result in RGB."""
    pixels = image.width * image.height
    taken = BYTES_PER_PIXEL[media_type] * pixels
    if media_type == "image/jpeg" and formats.jpeg_scan_count(content) > 1:
        taken += COEFFICIENT_BYTES * len(image.getbands()) * pixels
    return min(taken, MAX_DECODING_BYTES)
