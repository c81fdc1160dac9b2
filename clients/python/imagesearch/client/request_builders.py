"""Functions that build request messages from keywords.

The methods of both clients take their signatures and docstrings from these functions.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from imagesearch.client._values import PlainTag, tag_value
from imagesearch.gateway.v1.image_pb2 import (
    AddImageRequest,
    BatchAddImagesRequest,
    DeleteImageRequest,
    DeleteImagesRequest,
    GetImageRequest,
    GetThumbnailRequest,
    Image,
    ListImagesRequest,
    UpdateImageRequest,
)
from imagesearch.gateway.v1.library_pb2 import (
    CreateLibraryRequest,
    DeleteLibraryRequest,
    GetLibraryRequest,
    Library,
    ListLibrariesRequest,
    UpdateLibraryRequest,
)
from imagesearch.gateway.v1.search_pb2 import (
    AnnotationOptions,
    BatchSearchImagesRequest,
    CompareImagesRequest,
    DetectSubjectsRequest,
    FindDuplicatesRequest,
    ImagePair,
    KeepPolicy,
    RejectPairsRequest,
    Relation,
    SearchImagesRequest,
)
from imagesearch.gateway.v1.server_info_pb2 import GetServerInfoRequest
from imagesearch.type.v1.category_pb2 import Category
from imagesearch.type.v1.geometry_pb2 import Box
from imagesearch.type.v1.library_type_pb2 import LibraryType
from imagesearch.type.v1.picture_pb2 import ImageContent
from imagesearch.type.v1.tag_pb2 import TagValue


def new_request_id() -> str:
    return uuid.uuid4().hex


def create_library(
    *,
    library_id: str,
    library_type: LibraryType.ValueType,
    display_name: str = "",
    description: str = "",
    capacity: int = 0,
    thumbnails_disabled: bool = False,
    request_id: str = "",
) -> CreateLibraryRequest:
    """Create an empty library. Its type cannot change; a capacity of 0 means no limit."""
    return CreateLibraryRequest(
        library_id=library_id,
        library=Library(
            type=library_type,
            display_name=display_name,
            description=description,
            capacity=capacity,
            thumbnails_disabled=thumbnails_disabled,
        ),
        request_id=request_id or new_request_id(),
    )


def get_library(*, name: str) -> GetLibraryRequest:
    """Return a library with its counts."""
    return GetLibraryRequest(name=name)


def get_server_info() -> GetServerInfoRequest:
    """Return the version and the limits of the service."""
    return GetServerInfoRequest()


def list_libraries(*, page_size: int = 0, page_token: str = "") -> ListLibrariesRequest:
    """Return a page of libraries. `libraries` iterates over all pages."""
    return ListLibrariesRequest(page_size=page_size, page_token=page_token)


def update_library(
    *,
    name: str,
    display_name: str | None = None,
    description: str | None = None,
    capacity: int | None = None,
    thumbnails_disabled: bool | None = None,
    request_id: str = "",
) -> UpdateLibraryRequest:
    """Update a library. Fields that are None do not change."""
    changes = {
        "display_name": display_name,
        "description": description,
        "capacity": capacity,
        "thumbnails_disabled": thumbnails_disabled,
    }
    library = Library(name=name)
    mask = _set_given(library, changes)
    return UpdateLibraryRequest(
        library=library, update_mask=mask, request_id=request_id or new_request_id()
    )


def delete_library(*, name: str, request_id: str = "") -> DeleteLibraryRequest:
    """Delete a library and all its images permanently."""
    return DeleteLibraryRequest(name=name, request_id=request_id or new_request_id())


def add_image(
    *,
    parent: str = "",
    image: bytes,
    image_id: str = "",
    entity_id: str = "",
    tags: Mapping[str, PlainTag | TagValue] | None = None,
    category: Category.ValueType = Category.CATEGORY_UNSPECIFIED,
    custom_content: str = "",
    region: Box | None = None,
    subject_detection: bool | None = None,
    allow_overwrite: bool = False,
    request_id: str = "",
) -> AddImageRequest:
    """Add a picture to the library `parent`. The service assigns an id unless one is given."""
    return AddImageRequest(
        parent=parent,
        image_id=image_id,
        image=ImageContent(content=image),
        entity_id=entity_id,
        tags=_tags(tags),
        category=category,
        custom_content=custom_content,
        region=region,
        subject_detection=subject_detection,
        allow_overwrite=allow_overwrite,
        request_id=request_id or new_request_id(),
    )


def batch_add_images(*, parent: str, requests: Iterable[AddImageRequest]) -> BatchAddImagesRequest:
    """Add up to 100 pictures of at most 32 MiB in total. Each succeeds or fails independently.

    >>> library = client.create_library(
    ...     library_id="batches", library_type=LibraryType.LIBRARY_TYPE_WHOLE_IMAGE
    ... )
    >>> answer = client.batch_add_images(
    ...     parent=library.name,
    ...     requests=[
    ...         request_builders.add_image(image_id="good", image=picture),
    ...         request_builders.add_image(image_id="bad", image=b"no picture"),
    ...     ],
    ... )
    >>> [result.WhichOneof("result") for result in answer.results]
    ['image', 'error']
    >>> ImageSearchError.from_status(answer.results[1].error).reason
    'IMAGE_UNREADABLE'
    >>> _ = client.delete_library(name=library.name)
    """
    batch = BatchAddImagesRequest(parent=parent, requests=requests)
    for request in batch.requests:
        request.request_id = request.request_id or new_request_id()
    return batch


def get_image(*, name: str) -> GetImageRequest:
    """Return a stored image."""
    return GetImageRequest(name=name)


def get_thumbnail(*, name: str) -> GetThumbnailRequest:
    """Return the thumbnail of a stored image."""
    return GetThumbnailRequest(name=name)


def list_images(
    *,
    parent: str,
    filter: str = "",  # noqa: A002
    page_size: int = 0,
    page_token: str = "",
) -> ListImagesRequest:
    """Return a page of stored images. `images` iterates over all pages."""
    return ListImagesRequest(
        parent=parent, filter=filter, page_size=page_size, page_token=page_token
    )


def update_image(
    *,
    name: str,
    entity_id: str | None = None,
    category: Category.ValueType | None = None,
    custom_content: str | None = None,
    tags: Mapping[str, PlainTag | TagValue] | None = None,
    set_tags: Mapping[str, PlainTag | TagValue | None] | None = None,
    request_id: str = "",
) -> UpdateImageRequest:
    """Update the metadata of an image.

    Fields that are None do not change. `tags` replaces all tags; `set_tags` sets single tags and
    removes tags whose value is None.
    """
    changes = {"entity_id": entity_id, "category": category, "custom_content": custom_content}
    image = Image(name=name, tags=_tags(tags))
    mask = _set_given(image, changes)
    if tags is not None:
        mask.paths.append("tags")
    for tag, value in (set_tags or {}).items():
        mask.paths.append(f"tags.{tag}")
        if value is not None:
            image.tags[tag].CopyFrom(tag_value(value))
    return UpdateImageRequest(
        image=image, update_mask=mask, request_id=request_id or new_request_id()
    )


def delete_image(*, name: str, request_id: str = "") -> DeleteImageRequest:
    """Delete an image."""
    return DeleteImageRequest(name=name, request_id=request_id or new_request_id())


def delete_images(
    *,
    parent: str,
    names: Iterable[str] = (),
    entity_id: str = "",
    filter: str = "",  # noqa: A002
    request_id: str = "",
) -> DeleteImagesRequest:
    """Delete images by names, entity or filter; exactly one of these is required."""
    return DeleteImagesRequest(
        parent=parent,
        names=names,
        entity_id=entity_id,
        filter=filter,
        request_id=request_id or new_request_id(),
    )


def search_images(
    *,
    parent: str = "",
    image: bytes | None = None,
    image_name: str = "",
    region: Box | None = None,
    subject_detection: bool | None = None,
    filter: str = "",  # noqa: A002
    category: Category.ValueType = Category.CATEGORY_UNSPECIFIED,
    page_size: int = 0,
    page_token: str = "",
    min_score: float | None = None,
    max_false_positive_rate: float | None = None,
    relation: Relation.ValueType = Relation.RELATION_UNSPECIFIED,
    distinct_entities: bool = False,
    include_thumbnails: bool = False,
    annotation: AnnotationOptions | None = None,
) -> SearchImagesRequest:
    """Search a library with a picture, or with the name of a stored image."""
    request = SearchImagesRequest(
        parent=parent,
        image=None if image is None else ImageContent(content=image),
        region=region,
        subject_detection=subject_detection,
        filter=filter,
        category=category,
        page_size=page_size,
        page_token=page_token,
        min_score=min_score,
        max_false_positive_rate=max_false_positive_rate,
        relation=relation,
        distinct_entities=distinct_entities,
        include_thumbnails=include_thumbnails,
        annotation=annotation,
    )
    if image_name:
        request.image_name = image_name
    return request


def batch_search_images(
    *, parent: str, requests: Iterable[SearchImagesRequest]
) -> BatchSearchImagesRequest:
    """Run up to 100 searches of a library. Each succeeds or fails independently."""
    return BatchSearchImagesRequest(parent=parent, requests=requests)


def detect_subjects(
    *,
    image: bytes,
    region: Box | None = None,
    category: Category.ValueType = Category.CATEGORY_UNSPECIFIED,
    annotation: AnnotationOptions | None = None,
) -> DetectSubjectsRequest:
    """Detect the subjects of a picture: box, category, colors, attributes. Nothing is stored."""
    return DetectSubjectsRequest(
        image=ImageContent(content=image), region=region, category=category, annotation=annotation
    )


def compare_images(
    *, image_a: bytes, image_b: bytes, include_overlay: bool = False
) -> CompareImagesRequest:
    """Compare two pictures. Nothing is stored."""
    return CompareImagesRequest(
        image_a=ImageContent(content=image_a),
        image_b=ImageContent(content=image_b),
        include_overlay=include_overlay,
    )


def find_duplicates(
    *,
    parent: str,
    filter: str = "",  # noqa: A002
    min_score: float | None = None,
    max_false_positive_rate: float | None = None,
    keep: KeepPolicy.ValueType = KeepPolicy.KEEP_POLICY_UNSPECIFIED,
    page_token: str = "",
) -> FindDuplicatesRequest:
    """Find groups of near-duplicates within a library."""
    return FindDuplicatesRequest(
        parent=parent,
        filter=filter,
        min_score=min_score,
        max_false_positive_rate=max_false_positive_rate,
        keep=keep,
        page_token=page_token,
    )


def reject_pairs(
    *, parent: str, pairs: Iterable[tuple[str, str]], request_id: str = ""
) -> RejectPairsRequest:
    """Mark up to 1,000 pairs of images, given by name, as different pictures."""
    return RejectPairsRequest(
        parent=parent,
        pairs=[ImagePair(name_a=a, name_b=b) for a, b in pairs],
        request_id=request_id or new_request_id(),
    )


def _tags(tags: Mapping[str, PlainTag | TagValue] | None) -> dict[str, TagValue]:
    return {name: tag_value(value) for name, value in (tags or {}).items()}


def _set_given(message: Message, changes: Mapping[str, object]) -> FieldMask:
    given = {field: value for field, value in changes.items() if value is not None}
    for field, value in given.items():
        setattr(message, field, value)
    return FieldMask(paths=given)
