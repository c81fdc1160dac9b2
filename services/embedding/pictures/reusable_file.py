"""A picture file for several steps of a call, which is decoded once if possible."""

from __future__ import annotations

from imagesearch_services.common.types import PictureInfo
from imagesearch_services.embedding.pictures.opened_file import Decoder, OpenedFile
from imagesearch_services.embedding.pictures.picture import REDUCTIONS, Picture


class ReusableFile(OpenedFile):
    """A picture file that keeps its decoded picture until `drop_picture` is called.

    A JPEG is decoded at the lowest resolution that a step allows. A later step that needs a higher
    resolution decodes the file again. Decoding every picture at the higher resolution would slow
    down the first step, which often is the only step.
    """

    def __init__(self, file: OpenedFile) -> None:
        super().__init__(
            content=file.content,
            media_type=file.media_type,
            width=file.width,
            height=file.height,
            is_sideways=file.is_sideways,
            decoding_bytes=file.decoding_bytes,
        )
        self._picture: Picture | None = None
        self._info: PictureInfo | None = None

    @property
    def kept_pixels(self) -> int:
        """Number of decoded pixels that are kept."""
        if self._picture is None:
            return 0
        return self._picture.image.width * self._picture.image.height

    async def decode(self, decoder: Decoder, reduction: float = 1.0) -> Picture:
        """Return the picture at a resolution that the reduction allows.

        May be called several times, but not by two tasks at once. See `Decoder.decode`.
        """
        if self._picture is None or not _is_sufficient(self._picture, reduction):
            self._picture = None
            self._picture = await super().decode(decoder, reduction)
        return self._picture

    def describe(self, picture: Picture) -> PictureInfo:
        """Return the properties of the file, computed from the first decoded picture."""
        if self._info is None:
            self._info = super().describe(picture)
        return self._info

    def drop_picture(self) -> None:
        """Free the decoded picture."""
        self._picture = None


def _is_sufficient(picture: Picture, reduction: float) -> bool:
    factor = next((factor for factor in REDUCTIONS if factor <= reduction), 1)
    return picture.width <= factor * picture.image.width
