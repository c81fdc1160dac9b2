"""Reads a picture file for several steps of a call, and decodes it once if possible."""

from __future__ import annotations

from imagesearch_services.common.types import PictureInfo
from imagesearch_services.embedding.pictures.picture_file import REDUCTIONS, Picture, PictureFile


class ReusableFile(PictureFile):
    """A picture file that keeps its decoded picture until `drop_picture` is called.

    A JPEG is decoded at the lowest resolution that a step allows. A later step that needs a higher
    resolution decodes the file again. Decoding every picture at the higher resolution would slow
    down the first step, which often is the only step.
    """

    def __init__(self, content: bytes) -> None:
        """Read the header, see `PictureFile`."""
        super().__init__(content)
        self._is_decoded = False
        self._picture: Picture | None = None
        self._info: PictureInfo | None = None

    @property
    def kept_pixels(self) -> int:
        """Number of decoded pixels that are kept."""
        if self._picture is None:
            return 0
        return self._picture.image.width * self._picture.image.height

    def decode(self, reduction: float = 1.0) -> Picture:
        """Return the picture at a resolution that the reduction allows.

        May be called several times, but not by two threads at once. See `PictureFile.decode`.
        """
        if self._picture is not None and _is_sufficient(self._picture, reduction):
            return self._picture
        self._picture = None
        if self._is_decoded:
            self._image = self._open()
        self._is_decoded = True
        self._picture = super().decode(reduction)
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
