"""Errors of the Catalog that several modules raise."""

from __future__ import annotations

from imagesearch_services.catalog.model import Library
from imagesearch_services.common.errors import Reason, ServiceError


def library_not_found(library_id: str) -> ServiceError:
    return ServiceError(
        Reason.LIBRARY_NOT_FOUND,
        f"there is no library {library_id}",
        metadata={"library": _library_name(library_id)},
    )


def library_already_exists(library_id: str) -> ServiceError:
    return ServiceError(
        Reason.LIBRARY_ALREADY_EXISTS,
        f"library {library_id} already exists",
        metadata={"library": _library_name(library_id)},
    )


def library_changed(library_id: str) -> ServiceError:
    """Return the error of a call whose library was deleted while it ran."""
    return ServiceError(
        Reason.LIBRARY_CHANGED,
        f"library {library_id} was deleted or recreated during the call; repeat the call",
        metadata={"library": _library_name(library_id)},
    )


def library_damaged(library_id: str) -> ServiceError:
    return ServiceError(
        Reason.LIBRARY_DAMAGED,
        f"stored data of library {library_id} is missing or damaged; "
        "the operator finds out more with `imagesearch catalog check`",
        metadata={"library": _library_name(library_id)},
    )


def image_damaged(library_id: str, image_id: str) -> ServiceError:
    return ServiceError(
        Reason.IMAGE_DAMAGED,
        f"the stored entry of image {image_id} is damaged; add the image again with "
        "allow_overwrite, or delete it",
        metadata={"image": _image_name(library_id, image_id)},
    )


def library_full(library: Library) -> ServiceError:
    return ServiceError(
        Reason.LIBRARY_FULL,
        f"library {library.library_id} holds its maximum of {library.capacity} images; "
        "raise its capacity or delete images",
        metadata={
            "library": _library_name(library.library_id),
            "capacity": str(library.capacity),
        },
    )


def too_many_libraries(limit: int) -> ServiceError:
    return ServiceError(
        Reason.TOO_MANY_LIBRARIES,
        f"there are {limit} libraries, the maximum; delete some or raise the limit of the Catalog",
        metadata={"limit": str(limit)},
    )


def too_many_tag_names(library: Library, limit: int) -> ServiceError:
    return ServiceError(
        Reason.TOO_MANY_TAG_NAMES,
        f"library {library.library_id} has its maximum of {limit} distinct tag names; "
        "use the names that it has, or remove names from all its images",
        metadata={"library": _library_name(library.library_id), "limit": str(limit)},
    )


def image_not_found(library_id: str, image_id: str) -> ServiceError:
    return ServiceError(
        Reason.IMAGE_NOT_FOUND,
        f"there is no image {image_id}",
        metadata={"image": _image_name(library_id, image_id)},
    )


def image_already_exists(library_id: str, image_id: str) -> ServiceError:
    return ServiceError(
        Reason.IMAGE_ALREADY_EXISTS,
        f"image {image_id} already exists; set allow_overwrite to replace it",
        metadata={"image": _image_name(library_id, image_id)},
    )


def _library_name(library_id: str) -> str:
    return f"libraries/{library_id}"


def _image_name(library_id: str, image_id: str) -> str:
    return f"{_library_name(library_id)}/images/{image_id}"
