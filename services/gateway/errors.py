"""Errors that several packages of the Gateway raise."""

from __future__ import annotations

from collections.abc import Sequence

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.types import LibraryType
from imagesearch_services.gateway.model import Library, Relation
from imagesearch_services.gateway.names import image_name, library_name


def library_changed(library: Library) -> ServiceError:
    """Return the error for a library that was deleted and recreated during the call."""
    name = library_name(library.library_id)
    return ServiceError(
        Reason.LIBRARY_CHANGED,
        f"{name} was deleted and recreated during the call; start again from the first page",
        metadata={"library": name},
    )


def image_not_found(library_id: str, image_id: str) -> ServiceError:
    """Return the error for an image that does not exist."""
    name = image_name(library_id, image_id)
    return ServiceError(Reason.IMAGE_NOT_FOUND, f"{name} does not exist", metadata={"image": name})


def library_type_mismatch(library: Library, message: str) -> ServiceError:
    """Return the error for a call that libraries of this type do not support."""
    return ServiceError(
        Reason.LIBRARY_TYPE_MISMATCH,
        message,
        metadata={
            "library": library_name(library.library_id),
            "type": library.type.name
            if isinstance(library.type, LibraryType)
            else str(library.type),
        },
    )


def refuse_unknown_type(library: Library) -> LibraryType:
    """Return the type of a library; raise LIBRARY_TYPE_MISMATCH if it is of a later version."""
    if not isinstance(library.type, LibraryType):
        raise library_type_mismatch(
            library,
            f"{library_name(library.library_id)} has a type of a later version of the suite",
        )
    return library.type


def refuse_subject_detection(library: Library, requested: bool | None) -> None:
    """Raise LIBRARY_TYPE_MISMATCH for subject detection outside product libraries."""
    if requested and library.type is not LibraryType.PRODUCT:
        raise library_type_mismatch(
            library, "subject_detection: only product libraries detect subjects"
        )


def refuse_relations(library: Library, relations: Sequence[Relation]) -> None:
    """Raise LIBRARY_TYPE_MISMATCH for relations outside whole-image libraries."""
    if relations and library.type is not LibraryType.WHOLE_IMAGE:
        raise library_type_mismatch(
            library, "relation: only whole-image libraries distinguish SAME and SIMILAR"
        )


def thumbnail_not_found(library_id: str, image_id: str) -> ServiceError:
    """Return the error for an image without a thumbnail."""
    name = image_name(library_id, image_id)
    return ServiceError(
        Reason.THUMBNAIL_NOT_FOUND, f"{name} has no thumbnail", metadata={"image": name}
    )
