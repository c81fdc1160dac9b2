"""Conversion of `imagesearch.type.v1` messages from and to the shared value types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import cast

from google.protobuf.timestamp_pb2 import Timestamp

from imagesearch.type.v1 import (
    category_pb2,
    geometry_pb2,
    library_type_pb2,
    model_pb2,
    picture_pb2,
    subject_pb2,
    tag_pb2,
)
from imagesearch_services.common.errors import field_error
from imagesearch_services.common.types import (
    Attribute,
    Box,
    Category,
    Color,
    LibraryType,
    ModelVersion,
    PictureInfo,
    Quadrilateral,
    SparseVector,
    StepTiming,
    Subject,
    TagValue,
    Vector,
)


def read_box(message: geometry_pb2.Box) -> Box:
    return Box(message.x_min, message.y_min, message.x_max, message.y_max)


def write_box(value: Box) -> geometry_pb2.Box:
    return geometry_pb2.Box(
        x_min=value.x_min, y_min=value.y_min, x_max=value.x_max, y_max=value.y_max
    )


def read_picture_info(message: picture_pb2.PictureInfo) -> PictureInfo:
    return PictureInfo(
        width=message.width,
        height=message.height,
        size_bytes=message.size_bytes,
        sha256=message.sha256,
        media_type=message.media_type,
        sharpness=message.sharpness,
    )


def write_picture_info(value: PictureInfo) -> picture_pb2.PictureInfo:
    return picture_pb2.PictureInfo(
        width=value.width,
        height=value.height,
        size_bytes=value.size_bytes,
        sha256=value.sha256,
        media_type=value.media_type,
        sharpness=value.sharpness,
    )


def read_model_version(message: model_pb2.ModelVersion) -> ModelVersion:
    return ModelVersion(role=message.role, name=message.name, version=message.version)


def write_model_version(value: ModelVersion) -> model_pb2.ModelVersion:
    return model_pb2.ModelVersion(role=value.role, name=value.name, version=value.version)


def read_vector(message: model_pb2.Vector) -> Vector:
    return Vector(message.space, message.values, message.background_similarity)


def write_vector(value: Vector) -> model_pb2.Vector:
    return model_pb2.Vector(
        space=value.space,
        values=value.values,
        background_similarity=value.background_similarity,
    )


def read_sparse_vector(message: model_pb2.SparseVector) -> SparseVector:
    return SparseVector(message.space, tuple(message.indices), tuple(message.values))


def write_sparse_vector(value: SparseVector) -> model_pb2.SparseVector:
    return model_pb2.SparseVector(space=value.space, indices=value.indices, values=value.values)


def read_quadrilateral(message: geometry_pb2.Quadrilateral) -> Quadrilateral:
    return tuple((corner.x, corner.y) for corner in message.corners)


def write_quadrilateral(value: Quadrilateral) -> geometry_pb2.Quadrilateral:
    return geometry_pb2.Quadrilateral(corners=[geometry_pb2.Point(x=x, y=y) for x, y in value])


def read_timings(messages: Iterable[model_pb2.StepTiming]) -> list[StepTiming]:
    return [StepTiming(message.step, message.duration_ms) for message in messages]


def write_timing(value: StepTiming) -> model_pb2.StepTiming:
    return model_pb2.StepTiming(step=value.step, duration_ms=value.duration_ms)


def read_tags(
    messages: Mapping[str, tag_pb2.TagValue], *, field: str = "tags"
) -> dict[str, TagValue]:
    """Read tags by name.

    Raises:
        ServiceError: FIELD_INVALID for a tag without a value.
    """
    tags = {}
    for name, message in messages.items():
        value = read_tag(message)
        if value is None:
            raise field_error(f"{field}.{name}", "must have a value")
        tags[name] = value
    return tags


def read_tag(message: tag_pb2.TagValue) -> TagValue | None:
    """Read the value of a tag; None if no value is set."""
    kind = message.WhichOneof("kind")
    return None if kind is None else cast("TagValue", getattr(message, kind))


def write_tag(value: TagValue) -> tag_pb2.TagValue:
    if isinstance(value, bool):
        return tag_pb2.TagValue(bool_value=value)
    if isinstance(value, int):
        return tag_pb2.TagValue(int_value=value)
    if isinstance(value, float):
        return tag_pb2.TagValue(float_value=value)
    return tag_pb2.TagValue(string_value=value)


def read_library_type(number: int, *, field: str = "type") -> LibraryType | None:
    """Read a library type; None for LIBRARY_TYPE_UNSPECIFIED.

    Raises:
        ServiceError: FIELD_INVALID for an unknown number.
    """
    if not number:
        return None
    try:
        return LibraryType(number)
    except ValueError:
        raise field_error(field, f"{number} is not a value of LibraryType") from None


def write_library_type(value: LibraryType | int) -> library_type_pb2.LibraryType.ValueType:
    return cast("library_type_pb2.LibraryType.ValueType", int(value))


def read_category(number: int, *, field: str = "category") -> Category | None:
    """Read a category; None for CATEGORY_UNSPECIFIED.

    Raises:
        ServiceError: FIELD_INVALID for an unknown number.
    """
    if not number:
        return None
    try:
        return Category(number)
    except ValueError:
        raise field_error(field, f"{number} is not a value of Category") from None


def write_category(value: Category | None) -> category_pb2.Category.ValueType:
    return cast("category_pb2.Category.ValueType", int(value or 0))


def read_subject(message: subject_pb2.Subject, *, field: str = "subject") -> Subject:
    return Subject(
        box=read_box(message.box),
        category=read_category(message.category, field=f"{field}.category"),
        score=message.score,
        colors=[Color(color.name, color.hex, color.share) for color in message.colors],
        attributes=[
            Attribute(attribute.name, attribute.value, attribute.score)
            for attribute in message.attributes
        ],
    )


def write_subject(value: Subject) -> subject_pb2.Subject:
    return subject_pb2.Subject(
        box=write_box(value.box),
        category=write_category(value.category),
        score=value.score,
        colors=[
            subject_pb2.Color(name=color.name, hex=color.hex, share=color.share)
            for color in value.colors
        ],
        attributes=[
            subject_pb2.Attribute(name=attribute.name, value=attribute.value, score=attribute.score)
            for attribute in value.attributes
        ],
    )


def read_time(message: Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)


def write_time(value: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(value)
    return message
