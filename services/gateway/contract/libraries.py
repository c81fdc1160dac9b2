"""Conversion of library messages. Reading validates requests and raises ServiceError."""

from __future__ import annotations

from imagesearch.gateway.v1 import library_pb2
from imagesearch_services.common import type_messages
from imagesearch_services.common.errors import missing_field
from imagesearch_services.common.types import LibraryType
from imagesearch_services.gateway import names
from imagesearch_services.gateway.contract import limits
from imagesearch_services.gateway.contract.fields import unknown_path
from imagesearch_services.gateway.library.libraries import SETTABLE as LIBRARY_SETTABLE
from imagesearch_services.gateway.model import Library, LibraryFields
from imagesearch_services.gateway.ports import Changes


def read_library_type(number: int) -> LibraryType:
    library_type = type_messages.read_library_type(number, field="library.type")
    if library_type is None:
        raise missing_field("library.type")
    return library_type


def read_library_fields(message: library_pb2.Library) -> LibraryFields:
    return limits.check_library_fields(
        LibraryFields(
            display_name=message.display_name,
            description=message.description,
            capacity=message.capacity,
            thumbnails_disabled=message.thumbnails_disabled,
        )
    )


def read_library_changes(request: library_pb2.UpdateLibraryRequest) -> Changes:
    """Return the new value of each field in the mask; without a mask, of each field that is set."""
    fields = read_library_fields(request.library)
    paths = list(request.update_mask.paths) or [
        path for path in LIBRARY_SETTABLE if getattr(fields, path)
    ]
    for path in paths:
        if path not in LIBRARY_SETTABLE:
            raise unknown_path(path, LIBRARY_SETTABLE, library_pb2.Library.DESCRIPTOR)
    return {path: getattr(fields, path) for path in paths}


def write_library(library: Library) -> library_pb2.Library:
    return library_pb2.Library(
        name=names.library_name(library.library_id),
        type=type_messages.write_library_type(library.type),
        display_name=library.fields.display_name,
        description=library.fields.description,
        capacity=library.fields.capacity,
        thumbnails_disabled=library.fields.thumbnails_disabled,
        image_count=library.image_count,
        models=[type_messages.write_model_version(model) for model in library.models],
        create_time=type_messages.write_time(library.create_time),
        update_time=type_messages.write_time(library.update_time),
        unindexed_vector_count=library.unindexed_vector_count,
        damaged=library.damaged,
    )
