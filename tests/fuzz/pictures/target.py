"""The fuzzed code: what Embedding does with an untrusted picture."""

from __future__ import annotations

import random

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.embedding.pictures.description import describe_file
from imagesearch_services.embedding.pictures.picture_file import PictureFile
from imagesearch_services.embedding.pictures.thumbnails import thumbnail

EXPECTED = {
    Reason.IMAGE_UNREADABLE,
    Reason.IMAGE_TRUNCATED,
    Reason.IMAGE_TOO_LARGE,
    Reason.IMAGE_TOO_SMALL,
    Reason.IMAGE_TOO_COSTLY,
}
"""Reasons for which a picture may be refused."""

THUMBNAIL_SIDE_PX = 320


class WrongAnswerError(Exception):
    """A picture was neither decoded nor refused with a reason of pictures."""


def try_picture(content: bytes, random_: random.Random) -> str:
    """Decode a picture as Embedding does, and return "pixels" or the reason of the refusal.

    Raises:
        Exception: a failure: whatever is not a refusal.
    """
    try:
        file = PictureFile(content)
        shown = file.shown_size
        reduction = random_.choice((1.0, 1.0, 2.0, 8.0))
        picture = file.decode(reduction)
        if picture.image.mode != "RGB" or not picture.image.width or not picture.image.height:
            raise WrongAnswerError(f"{picture.image.mode} {picture.image.size}")
        if sorted(shown) != sorted((picture.width, picture.height)):
            raise WrongAnswerError(f"shown {shown}, decoded {picture.width} × {picture.height}")
        describe_file(content, file.media_type, picture)
        thumbnail(picture.image, THUMBNAIL_SIDE_PX)
    except ServiceError as refusal:
        if refusal.reason not in EXPECTED:
            raise WrongAnswerError(refusal.reason) from refusal
        return refusal.reason.value
    return "pixels"
