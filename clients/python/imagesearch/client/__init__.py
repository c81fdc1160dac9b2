"""A thin client of the image-search Gateway: `Client` for threads, `AsyncClient` for asyncio.

>>> from imagesearch.client import Client, LibraryType
>>> with Client() as client:
...     library = client.create_library(
...         library_id="first-steps", library_type=LibraryType.LIBRARY_TYPE_WHOLE_IMAGE
...     )
...     stored = client.add_image(
...         parent=library.name, image_id="cat", image=picture, tags={"legs": 4, "tame": True}
...     )
...     answer = client.search_images(parent=library.name, image=picture, filter="tags.legs = 4")
...     _ = client.delete_library(name=library.name)
>>> [match.image.image_id for match in answer.matches]
['cat']

The keywords of a method are the fields of its request message. Nested messages are plain Python
values: bytes for a picture, a dict for tags. A method returns the response message, or raises an
`ImageSearchError` with a `reason` to branch on. `request_builders` builds the items of a batch.
"""

from imagesearch.client import request_builders
from imagesearch.client._aio import AsyncClient
from imagesearch.client._channel import DEFAULT_TARGET, MAX_MESSAGE_BYTES
from imagesearch.client._errors import FieldViolation, ImageSearchError
from imagesearch.client._sync import Client
from imagesearch.client._values import (
    PlainTag,
    image_name,
    library_name,
    plain_tags,
    tag_value,
)
from imagesearch.gateway.v1.image_pb2 import (
    AddImageRequest,
    BatchAddImagesResponse,
    BatchAddImagesResult,
    Image,
    ListImagesResponse,
)
from imagesearch.gateway.v1.library_pb2 import Library, ListLibrariesResponse
from imagesearch.gateway.v1.search_pb2 import (
    AnnotationOptions,
    BatchSearchImagesResponse,
    BatchSearchImagesResult,
    CompareImagesResponse,
    DetectSubjectsResponse,
    DuplicateGroup,
    FindDuplicatesResponse,
    KeepPolicy,
    Match,
    Relation,
    SearchImagesRequest,
    SearchImagesResponse,
    Verdict,
)
from imagesearch.gateway.v1.server_info_pb2 import Limit, ServerInfo
from imagesearch.type.v1.category_pb2 import Category
from imagesearch.type.v1.geometry_pb2 import Box
from imagesearch.type.v1.library_type_pb2 import LibraryType
from imagesearch.type.v1.subject_pb2 import Subject
from imagesearch.type.v1.tag_pb2 import TagValue

__all__ = [
    "DEFAULT_TARGET",
    "MAX_MESSAGE_BYTES",
    "AddImageRequest",
    "AnnotationOptions",
    "AsyncClient",
    "BatchAddImagesResponse",
    "BatchAddImagesResult",
    "BatchSearchImagesResponse",
    "BatchSearchImagesResult",
    "Box",
    "Category",
    "Client",
    "CompareImagesResponse",
    "DetectSubjectsResponse",
    "DuplicateGroup",
    "FieldViolation",
    "FindDuplicatesResponse",
    "Image",
    "ImageSearchError",
    "KeepPolicy",
    "Library",
    "LibraryType",
    "Limit",
    "ListImagesResponse",
    "ListLibrariesResponse",
    "Match",
    "PlainTag",
    "Relation",
    "SearchImagesRequest",
    "SearchImagesResponse",
    "ServerInfo",
    "Subject",
    "TagValue",
    "Verdict",
    "image_name",
    "library_name",
    "plain_tags",
    "request_builders",
    "tag_value",
]
