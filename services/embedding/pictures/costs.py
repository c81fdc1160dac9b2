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

MAX_SCANNED_PIXELS = 1_000_000_000
"""Maximum pixels of a JPEG times its scans: 20 scans of 50 megapixels."""

MAX_TIFF_STRIPS = 100_000
"""Maximum strips or tiles of a TIFF. Encoders write a few thousand for 50 megapixels."""

STRUCTURE_CHECKS = {
    "image/jpeg": structure.check_jpeg,
    "image/gif": structure.check_gif,
    "image/tiff": structure.check_tiff,
    "image/webp": structure.check_webp,
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


def checked_scans(content: bytes, media_type: str, pixels: int) -> int:
    """Return the number of scans of a JPEG, each of which may visit all pixels; otherwise 1.

    Raises:
        ServiceError: IMAGE_TOO_COSTLY.
    """
    if media_type != "image/jpeg":
        return 1
    allowed = min(MAX_JPEG_SCANS, MAX_SCANNED_PIXELS // pixels)
    scans = formats.jpeg_scan_count(content)
    if scans > allowed:
        raise limits.too_costly(f"the JPEG has more than {allowed} scans", str(allowed), "scans")
    return scans


def decoding_bytes(media_type: str, image: ImageFile.ImageFile, scans: int) -> int:
    """Return the memory that decoding takes at full size, without the result in RGB."""
    pixels = image.width * image.height
    taken = limits.BYTES_PER_PIXEL[media_type] * pixels
    if scans > 1:
        taken += COEFFICIENT_BYTES * len(image.getbands()) * pixels
    return min(taken, limits.MAX_DECODING_BYTES)
