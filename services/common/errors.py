"""Errors of the domain: a reason, a message for people and metadata for programs."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


class Reason(enum.StrEnum):
    """Reason of an error.

    The names are those of `imagesearch.type.v1.ErrorReason` without the prefix. The proto
    documents them.
    """

    @staticmethod
    def _generate_next_value_(name: str, *_: object) -> str:
        return name

    FIELD_REQUIRED = enum.auto()
    FIELD_INVALID = enum.auto()
    FILTER_INVALID = enum.auto()
    IMAGE_UNREADABLE = enum.auto()
    IMAGE_TRUNCATED = enum.auto()
    IMAGE_TOO_LARGE = enum.auto()
    IMAGE_TOO_SMALL = enum.auto()
    REGION_INVALID = enum.auto()
    PAGE_TOKEN_INVALID = enum.auto()
    PAGE_TOKEN_EXPIRED = enum.auto()
    LIBRARY_NOT_FOUND = enum.auto()
    LIBRARY_ALREADY_EXISTS = enum.auto()
    LIBRARY_FULL = enum.auto()
    LIBRARY_TYPE_MISMATCH = enum.auto()
    IMAGE_NOT_FOUND = enum.auto()
    IMAGE_ALREADY_EXISTS = enum.auto()
    TAG_TYPE_MISMATCH = enum.auto()
    REQUEST_ID_REUSED = enum.auto()
    MODEL_NOT_SERVED = enum.auto()
    OVERLOADED = enum.auto()
    MODEL_SERVER_UNAVAILABLE = enum.auto()
    EMBEDDING_UNAVAILABLE = enum.auto()
    CATALOG_UNAVAILABLE = enum.auto()
    STORAGE_UNAVAILABLE = enum.auto()
    DEADLINE_EXCEEDED = enum.auto()
    NOT_IMPLEMENTED = enum.auto()
    INTERNAL = enum.auto()
    UNAUTHENTICATED = enum.auto()
    LIBRARY_CHANGED = enum.auto()
    THUMBNAIL_NOT_FOUND = enum.auto()
    BLOB_STORE_UNAVAILABLE = enum.auto()
    IMAGE_TOO_COSTLY = enum.auto()
    LIBRARY_DAMAGED = enum.auto()
    IMAGE_DAMAGED = enum.auto()
    STORAGE_FULL = enum.auto()
    CALLER_TOO_SLOW = enum.auto()
    TOO_MANY_TAG_NAMES = enum.auto()
    TOO_MANY_LIBRARIES = enum.auto()


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """Invalid field of a request."""

    field: str
    """Path from the request message, for example `image.content` or `requests[3].image_id`."""
    description: str
    """Requirement that the field violates, for example "must be positive"."""


class ServiceError(Exception):
    """An error that is safe to return to the caller. Services return no other errors."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        fields: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        """Create an error.

        Args:
            reason: reason for programs.
            message: one sentence for people, without secrets and file paths.
            metadata: details for programs. The proto lists the keys of each reason.
            fields: invalid fields of the request.
            retry_after_s: recommended delay before a retry, in seconds.
        """
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.fields = tuple(fields)
        self.retry_after_s = retry_after_s


def unwrap(result: Result | ServiceError) -> Result:
    """Return the result of an item, or raise its error."""
    if isinstance(result, ServiceError):
        raise result
    return result


def field_error(
    field: str, description: str, *, reason: Reason = Reason.FIELD_INVALID
) -> ServiceError:
    """Return an error about one invalid request field."""
    return ServiceError(
        reason,
        f"{field}: {description}",
        metadata={"field": field},
        fields=[FieldViolation(field, description)],
    )


def missing_field(field: str) -> ServiceError:
    """Return an error about a required request field that is missing or empty."""
    return field_error(field, "is required", reason=Reason.FIELD_REQUIRED)


def not_implemented(method: str) -> ServiceError:
    """Return an error about a method that this version does not implement."""
    return ServiceError(Reason.NOT_IMPLEMENTED, f"{method} is not implemented")
