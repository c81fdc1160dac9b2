"""Conversion between ServiceError, google.rpc.Status and gRPC errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from imagesearch_services.common.errors import FieldViolation, Reason, ServiceError

DOMAIN = "imagesearch"

CODES: dict[Reason, grpc.StatusCode] = {
    Reason.FIELD_REQUIRED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.FIELD_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.FILTER_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.IMAGE_UNREADABLE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.IMAGE_TRUNCATED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.IMAGE_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.IMAGE_TOO_SMALL: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.REGION_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.PAGE_TOKEN_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.PAGE_TOKEN_EXPIRED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.LIBRARY_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.LIBRARY_ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.LIBRARY_FULL: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.LIBRARY_TYPE_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.IMAGE_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.IMAGE_ALREADY_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.TAG_TYPE_MISMATCH: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.REQUEST_ID_REUSED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.MODEL_NOT_SERVED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.MODEL_SERVER_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.EMBEDDING_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.CATALOG_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.STORAGE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.NOT_IMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.LIBRARY_CHANGED: grpc.StatusCode.ABORTED,
    Reason.THUMBNAIL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.BLOB_STORE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.IMAGE_TOO_COSTLY: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.LIBRARY_DAMAGED: grpc.StatusCode.DATA_LOSS,
    Reason.IMAGE_DAMAGED: grpc.StatusCode.DATA_LOSS,
    Reason.STORAGE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.CALLER_TOO_SLOW: grpc.StatusCode.DEADLINE_EXCEEDED,
    Reason.TOO_MANY_TAG_NAMES: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.TOO_MANY_LIBRARIES: grpc.StatusCode.FAILED_PRECONDITION,
}

MAX_TEXT_BYTES = 512
"""Maximum UTF-8 bytes of a text in an error. Longer texts repeat a value of the request and are
cut; resource names are shorter."""
MAX_STATUS_BYTES = 4_000
"""Maximum size of a status. Clients refuse trailing metadata of more than 8 KiB, which holds the
status in base64, and its message again, with three bytes for each byte that is not ASCII."""

RETRY_AFTER_S = {grpc.StatusCode.UNAVAILABLE: 1.0, grpc.StatusCode.RESOURCE_EXHAUSTED: 1.0}
"""Default retry delay by status code, for errors without `retry_after_s`."""


def to_status(error: ServiceError) -> status_pb2.Status:
    """Convert an error to a google.rpc.Status with details. Long texts are cut."""
    code = CODES[error.reason]
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.value,
        domain=DOMAIN,
        metadata={key: cut(value) for key, value in error.metadata.items()},
    )
    status = status_pb2.Status(
        code=code.value[0], message=cut(error.message), details=[_packed(info)]
    )
    retry_after_s = (
        error.retry_after_s if error.retry_after_s is not None else RETRY_AFTER_S.get(code)
    )
    if retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(retry_after_s * 1000))
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    if error.fields:
        room_bytes = MAX_STATUS_BYTES - status.ByteSize()
        status.details.insert(1, _packed(_bad_request(error.fields, room_bytes)))
    return status


def _bad_request(
    violations: Sequence[FieldViolation], room_bytes: int
) -> error_details_pb2.BadRequest:
    """Return the violations that fit, at least the first one."""
    message = error_details_pb2.BadRequest()
    for violation in violations:
        message.field_violations.add(
            field=cut(violation.field), description=cut(violation.description)
        )
        if message.ByteSize() > room_bytes and len(message.field_violations) > 1:
            del message.field_violations[-1]
            break
    return message


def cut(text: str) -> str:
    """Return a text, or its beginning and an ellipsis if it is too long for an error."""
    encoded = text.encode()
    if len(encoded) <= MAX_TEXT_BYTES:
        return text
    return encoded[: MAX_TEXT_BYTES - 3].decode(errors="ignore") + "…"


def from_status(status: status_pb2.Status) -> ServiceError | None:
    """Convert a status of `to_status` back to an error; None for other statuses."""
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        _ = detail.Unpack(info) or detail.Unpack(bad_request) or detail.Unpack(retry)
    if info.domain != DOMAIN or info.reason not in Reason.__members__:
        return None
    return ServiceError(
        Reason[info.reason],
        status.message,
        metadata=dict(info.metadata),
        fields=[
            FieldViolation(violation.field, violation.description)
            for violation in bad_request.field_violations
        ],
        retry_after_s=retry.retry_delay.ToMilliseconds() / 1000
        if retry.HasField("retry_delay")
        else None,
    )


def from_rpc_error(error: grpc.aio.AioRpcError, *, peer: Reason) -> ServiceError:
    """Convert the error of a call to another service to an error for the caller of this service.

    Args:
        error: error that the stub raised.
        peer: reason if the service is unreachable, for example CATALOG_UNAVAILABLE.
    """
    known = _known(error)
    if known is not None:
        return known
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ServiceError(Reason.DEADLINE_EXCEEDED, "the deadline of the call passed")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ServiceError(Reason.OVERLOADED, f"{_service_name(peer)} is overloaded")
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}:
        return ServiceError(peer, f"{_service_name(peer)} does not answer")
    return ServiceError(Reason.INTERNAL, f"{_service_name(peer)} failed with {code.name}")


def _known(error: grpc.aio.AioRpcError) -> ServiceError | None:
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))
    except ValueError:  # gRPC itself ended the call, after its status was sent
        return None
    return from_status(status) if status is not None else None


def to_grpc(error: ServiceError) -> Any:
    """Return code, message and trailing metadata to abort a call with."""
    return rpc_status.to_status(to_status(error))


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _service_name(peer: Reason) -> str:
    name = peer.value.removesuffix("_UNAVAILABLE").replace("_", " ").lower()
    return f"the {name} service"
