"""Errors as the domain speaks of them: a reason, words for people, and facts for programs."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


class Reason(enum.StrEnum):
    """Why a call failed.

    The same names as `imagesearch.type.v1.ErrorReason` without its prefix; what each means
    stands there.
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


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One request field and what is wrong with it."""

    field: str
    """Path from the request message, for example `image.content` or `requests[3].image_id`."""
    description: str
    """What the field should have been."""


class ServiceError(Exception):
    """A failure that the caller is told of, whole: nothing else of an error leaves a service."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        fields: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        """Describe a failure.

        Args:
            reason: for programs.
            message: for people; one sentence, no secrets, no paths.
            metadata: facts for programs, as the reason's comment in the protos lists them.
            fields: the request fields at fault.
            retry_after_s: when a retry may do better, seconds from now.
        """
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.fields = tuple(fields)
        self.retry_after_s = retry_after_s


def unwrap(result: Result | ServiceError) -> Result:
    """Return the result of an item, or raise the error that stands in its place."""
    if isinstance(result, ServiceError):
        raise result
    return result


def field_error(
    field: str, description: str, *, reason: Reason = Reason.FIELD_INVALID
) -> ServiceError:
    """Say that one request field is at fault."""
    return ServiceError(
        reason,
        f"{field}: {description}",
        metadata={"field": field},
        fields=[FieldViolation(field, description)],
    )


def missing_field(field: str) -> ServiceError:
    """Say that a required request field is missing or empty."""
    return field_error(field, "is required", reason=Reason.FIELD_REQUIRED)


def not_implemented(what: str) -> ServiceError:
    """Say that a part of the contract is not built yet."""
    return ServiceError(Reason.NOT_IMPLEMENTED, f"{what} is not built yet")
