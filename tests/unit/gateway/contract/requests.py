"""Valid requests for tests to modify."""

from __future__ import annotations

from typing import Any

import pytest

from imagesearch.gateway.v1 import image_pb2, search_pb2
from imagesearch.type.v1 import picture_pb2
from imagesearch_services.common.errors import ServiceError

PICTURE = picture_pb2.ImageContent(content=b"picture")


def refusal(read: Any, *arguments: Any) -> ServiceError:
    """Read a request that must be rejected and return the error."""
    with pytest.raises(ServiceError) as caught:
        read(*arguments)
    return caught.value


def add(**fields: Any) -> image_pb2.AddImageRequest:
    return image_pb2.AddImageRequest(**{"image": PICTURE, "image_id": "a", **fields})


def search(**fields: Any) -> search_pb2.SearchImagesRequest:
    return search_pb2.SearchImagesRequest(
        **{"parent": "libraries/shop", "image": PICTURE, **fields}
    )
