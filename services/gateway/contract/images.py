"""Conversion of image messages. Reading validates requests and raises ServiceError."""

from __future__ import annotations

from imagesearch.gateway.v1 import image_pb2
from imagesearch_services.common import type_messages
from imagesearch_services.common.errors import field_error, missing_field
from imagesearch_services.gateway import names
from imagesearch_services.gateway.contract import limits
from imagesearch_services.gateway.contract.fields import optional_bool, unknown_path
from imagesearch_services.gateway.contract.filter_parser import parse_filter
from imagesearch_services.gateway.filters import Filter, entity_is
from imagesearch_services.gateway.model import ImageFields, NewImage, StoredImage
from imagesearch_services.gateway.ports import Changes

IMAGE_SETTABLE = ("entity_id", "category", "tags", "custom_content")


def read_new_image(request: image_pb2.AddImageRequest) -> NewImage:
    request_id = limits.check_request_id(request.request_id)
    if request.image_id:
        image_id = names.check_image_id(request.image_id, field="image_id")
    else:
        image_id = names.make_image_id(request_id)
    region = None
    if request.HasField("region"):
        region = limits.check_region(type_messages.read_box(request.region))
    return NewImage(
        image_id=image_id,
        content=limits.check_picture(request.image.content),
        fields=limits.check_image_fields(
            ImageFields(
                entity_id=request.entity_id,
                category=type_messages.read_category(request.category),
                tags=type_messages.read_tags(request.tags),
                custom_content=request.custom_content,
            )
        ),
        region=region,
        subject_detection=optional_bool(request, "subject_detection"),
        allow_overwrite=request.allow_overwrite,
        request_id=request_id,
    )


def read_image_changes(request: image_pb2.UpdateImageRequest) -> Changes:
    """Return the new value of each field in the mask; without a mask, of each field that is set.

    The value None of `tags.NAME` removes the tag.
    """
    message = request.image
    fields = limits.check_image_fields(
        ImageFields(
            entity_id=message.entity_id,
            category=type_messages.read_category(message.category, field="image.category"),
            tags=type_messages.read_tags(message.tags, field="image.tags"),
            custom_content=message.custom_content,
        ),
        under="image.",
    )
    paths = list(request.update_mask.paths) or [
        path for path in IMAGE_SETTABLE if getattr(fields, path)
    ]
    changes: dict[str, object] = {}
    for path in paths:
        family, dot, name = path.partition(".")
        if dot and family == "tags":
            changes[path] = fields.tags.get(limits.check_tag_name(name, field="update_mask"))
        elif path in IMAGE_SETTABLE:
            changes[path] = getattr(fields, path)
        else:
            raise unknown_path(path, (*IMAGE_SETTABLE, "tags.NAME"), image_pb2.Image.DESCRIPTOR)
    if "tags" in changes and any(path.startswith("tags.") for path in changes):
        raise field_error("update_mask", '"tags" and "tags.NAME" can\'t be combined')
    return changes


def read_images_to_delete(
    request: image_pb2.DeleteImagesRequest, library_id: str
) -> list[str] | Filter:
    """Return the images to delete: their ids, or a filter."""
    set_fields = [name for name in ("names", "entity_id", "filter") if getattr(request, name)]
    if not set_fields:
        raise missing_field("names, entity_id or filter")
    if len(set_fields) > 1:
        raise field_error(set_fields[1], f"can't be combined with {set_fields[0]}")
    if request.names:
        limits.check_count(len(request.names), limits.MAX_NAMES, field="names")
        return [
            read_image_id(library_id, name, field=f"names[{row}]")
            for row, name in enumerate(request.names)
        ]
    if request.entity_id:
        return entity_is(names.check_opaque_id(request.entity_id, field="entity_id"))
    images = parse_filter(request.filter)
    if images is None:
        # A filter of white space matches all images. Do not delete them by accident.
        raise missing_field("filter")
    return images


def read_image_id(library_id: str, name: str, *, field: str) -> str:
    """Return the image id of a resource name, which must be in the library."""
    parent_id, image_id = names.parse_image_name(name, field=field)
    if parent_id != library_id:
        raise field_error(field, f"must be an image of {names.library_name(library_id)}")
    return image_id


def write_image(image: StoredImage) -> image_pb2.Image:
    fields = image.fields
    return image_pb2.Image(
        name=names.image_name(image.library_id, image.image_id),
        image_id=image.image_id,
        entity_id=fields.entity_id,
        tags={name: type_messages.write_tag(value) for name, value in fields.tags.items()},
        category=type_messages.write_category(fields.category),
        custom_content=fields.custom_content,
        region=type_messages.write_box(image.region) if image.region else None,
        subject=type_messages.write_subject(image.subject) if image.subject else None,
        info=type_messages.write_picture_info(image.info),
        create_time=type_messages.write_time(image.create_time),
        update_time=type_messages.write_time(image.update_time),
        warnings=image.warnings,
    )


def write_thumbnail(file: bytes) -> image_pb2.GetThumbnailResponse:
    return image_pb2.GetThumbnailResponse(content=file, media_type="image/jpeg")
