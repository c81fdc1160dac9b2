"""A picture file whose header was read, and what decodes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from imagesearch_services.common.types import PictureInfo
from imagesearch_services.embedding.pictures.description import describe_file
from imagesearch_services.embedding.pictures.picture import Picture

RGB_BYTES = 3
"""Bytes of a pixel in RGB."""
BUDGET_PIXEL_BYTES = 8
"""Memory of a pixel of the budget, in bytes: a decoded picture takes 4, and its copies as an array
and in grey 4 more."""


class Decoder(Protocol):
    """Reads and decodes picture files."""

    async def open(self, content: bytes) -> OpenedFile:
        """Read the header of a picture file.

        Raises:
            ServiceError: an IMAGE_… reason or OVERLOADED.
        """

    async def decode(self, file: OpenedFile, reduction: float) -> Picture:
        """Decode the first frame, upright, as RGB over white.

        Args:
            file: a file that was opened.
            reduction: maximum factor by which the sides may be divided, to save time.

        Raises:
            ServiceError: an IMAGE_… reason or OVERLOADED.
        """


@dataclass(kw_only=True, eq=False)
class OpenedFile:
    """A picture file with a valid header within the limits."""

    content: bytes
    media_type: str
    width: int
    """Width in pixels, before the orientation is applied."""
    height: int
    """Height in pixels, before the orientation is applied."""
    is_sideways: bool
    """Whether the orientation in the header exchanges width and height."""
    decoding_bytes: int
    """Memory that decoding takes, without the result in RGB."""

    @property
    def pixels(self) -> int:
        """Upper bound of the decoded pixels."""
        return self.width * self.height

    @property
    def budget_pixels(self) -> int:
        """Memory of the picture while it is decoded and processed, in pixels of the budget."""
        decoding = self.decoding_bytes + RGB_BYTES * self.pixels
        return max(self.pixels, -(-decoding // BUDGET_PIXEL_BYTES))

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height as shown, by the orientation in the header."""
        return (self.height, self.width) if self.is_sideways else (self.width, self.height)

    async def decode(self, decoder: Decoder, reduction: float = 1.0) -> Picture:
        """Decode the picture, see `Decoder.decode`."""
        return await decoder.decode(self, reduction)

    def describe(self, picture: Picture) -> PictureInfo:
        """Return the properties of the file and its decoded picture."""
        return describe_file(self.content, self.media_type, picture)
