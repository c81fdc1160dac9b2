"""Conversion of `imagesearch.catalog.v1` messages from and to the Gateway's model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch.catalog.v1 import filter_pb2
from imagesearch_services.common import type_messages
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.types import Category, LibraryType, TagValue
from imagesearch_services.gateway.filters import (
    AllOf,
    AnyOf,
    Comparison,
    Filter,
    Not,
    Operator,
)
from imagesearch_services.gateway.model import (
    Hit,
    ImageFields,
    Library,
    LibraryFields,
    NewEntry,
    NewLibrary,
    StoredImage,
)
from imagesearch_services.gateway.ports import Changes

_OPERATORS = {
    Operator.EQUAL: filter_pb2.Condition.OPERATOR_EQUAL,
    Operator.NOT_EQUAL: filter_pb2.Condition.OPERATOR_NOT_EQUAL,
    Operator.LESS: filter_pb2.Condition.OPERATOR_LESS,
    Operator.LESS_OR_EQUAL: filter_pb2.Condition.OPERATOR_LESS_OR_EQUAL,
    Operator.GREATER: filter_pb2.Condition.OPERATOR_GREATER,
    Operator.GREATER_OR_EQUAL: filter_pb2.Condition.OPERATOR_GREATER_OR_EQUAL,
    Operator.HAS: filter_pb2.Condition.OPERATOR_HAS,
}


def write_new_library(library: NewLibrary) -> pb.Library:
    return pb.Library(
        library_id=library.library_id,
        type=type_messages.write_library_type(library.type),
        spaces=[
            pb.VectorSpace(
                name=served.model.space,
                dimensions=served.dimensions,
                sparse=not served.dimensions,
                # Candidates of an element search are verified, so reduced precision suffices.
                compact=library.type is LibraryType.ELEMENT,
            )
            for served in library.models
        ],
        models=[type_messages.write_model_version(served.model) for served in library.models],
        display_name=library.fields.display_name,
        description=library.fields.description,
        capacity=library.fields.capacity,
        thumbnails_disabled=library.fields.thumbnails_disabled,
    )


def read_library(message: pb.Library) -> Library:
    return Library(
        library_id=message.library_id,
        uid=message.uid,
        type=_library_type(message.type),
        fields=LibraryFields(
            display_name=message.display_name,
            description=message.description,
            capacity=message.capacity,
            thumbnails_disabled=message.thumbnails_disabled,
        ),
        models=[type_messages.read_model_version(model) for model in message.models],
        image_count=message.entry_count,
        unindexed_vector_count=message.unindexed_vector_count,
        damaged=message.damaged,
        create_time=type_messages.read_time(message.create_time),
        update_time=type_messages.read_time(message.update_time),
    )


def _library_type(number: int) -> LibraryType | int:
    """Return the type of a library, or its number if it is of a later version."""
    try:
        return LibraryType(number)
    except ValueError:
        return number


def write_entry(entry: NewEntry) -> pb.Entry:
    fields = entry.fields
    return pb.Entry(
        image_id=entry.image_id,
        entity_id=fields.entity_id,
        category=type_messages.write_category(fields.category),
        tags={name: type_messages.write_tag(value) for name, value in fields.tags.items()},
        custom_content=fields.custom_content,
        region=type_messages.write_box(entry.region),
        info=type_messages.write_picture_info(entry.info),
        vectors=[type_messages.write_vector(vector) for vector in entry.vectors],
        sparse_vectors=[type_messages.write_sparse_vector(entry.words)] if entry.words else [],
        features=entry.features,
        subject=type_messages.write_subject(entry.subject) if entry.subject else None,
        thumbnail=entry.thumbnail,
    )


def read_image(library_id: str, entry: pb.Entry) -> StoredImage:
    return StoredImage(
        library_id=library_id,
        image_id=entry.image_id,
        uid=entry.uid,
        fields=ImageFields(
            entity_id=entry.entity_id,
            category=type_messages.read_category(entry.category),
            tags=type_messages.read_tags(entry.tags),
            custom_content=entry.custom_content,
        ),
        region=type_messages.read_box(entry.region) if entry.HasField("region") else None,
        info=type_messages.read_picture_info(entry.info),
        create_time=type_messages.read_time(entry.create_time),
        update_time=type_messages.read_time(entry.update_time),
        subject=type_messages.read_subject(entry.subject) if entry.HasField("subject") else None,
        vectors=[type_messages.read_vector(vector) for vector in entry.vectors],
        has_thumbnail=entry.has_thumbnail,
    )


def read_hit(library_id: str, hit: pb.Hit) -> Hit:
    return Hit(
        hit.uid,
        hit.similarity,
        read_image(library_id, hit.entry) if hit.HasField("entry") else None,
    )


def read_thumbnail(entry: pb.Entry, error: ServiceError | None) -> bytes | ServiceError | None:
    """Return the thumbnail of a hit; empty if the image has no thumbnail.

    Returns `error` if the response lacks the thumbnail. An older Catalog returns no thumbnails with
    hits, and no error: `error` is None then.
    """
    return entry.thumbnail if entry.thumbnail or not entry.has_thumbnail else error


def write_library_changes(library_id: str, changes: Changes) -> pb.Library:
    message = pb.Library(library_id=library_id)
    for path, value in changes.items():
        setattr(message, path, value)
    return message


def write_image_changes(image_id: str, changes: Changes) -> pb.Entry:
    message = pb.Entry(image_id=image_id)
    for path, value in changes.items():
        _write_change(message, path, value)
    return message


def write_filter(value: Filter) -> filter_pb2.Filter:
    match value:
        case AllOf(members):
            return filter_pb2.Filter(all_of=_write_filters(members))
        case AnyOf(members):
            return filter_pb2.Filter(any_of=_write_filters(members))
        case Not(member):
            return filter_pb2.Filter(negation=write_filter(member))
        case Comparison(field, operator, operand):
            return filter_pb2.Filter(
                condition=filter_pb2.Condition(
                    field=field,
                    operator=_OPERATORS[operator],
                    value=None if operand is None else type_messages.write_tag(operand),
                )
            )


def _write_change(message: pb.Entry, path: str, value: object) -> None:
    if path == "tags":
        for name, tag in cast("dict[str, TagValue]", value).items():
            message.tags[name].CopyFrom(type_messages.write_tag(tag))
    elif path.startswith("tags."):
        if value is not None:
            tag = cast("TagValue", value)
            message.tags[path.removeprefix("tags.")].CopyFrom(type_messages.write_tag(tag))
    elif path == "category":
        message.category = type_messages.write_category(cast("Category | None", value))
    else:
        setattr(message, path, value)


def _write_filters(members: Sequence[Filter]) -> filter_pb2.FilterList:
    return filter_pb2.FilterList(filters=[write_filter(member) for member in members])
