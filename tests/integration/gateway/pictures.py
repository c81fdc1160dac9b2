"""Pictures for requests."""

from __future__ import annotations

from functools import cache

from imagesearch.type.v1 import picture_pb2
from tests.pictures import encoded, photo


@cache
def jpeg(seed: int) -> bytes:
    return encoded(photo(seed))


def image(seed: int) -> picture_pb2.ImageContent:
    return picture_pb2.ImageContent(content=jpeg(seed))
