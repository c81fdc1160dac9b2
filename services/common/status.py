"""Conversion between ServiceError, google.rpc.Status and gRPC errors."""

from __future__ import annotations

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

RETRY_AFTER_S = {grpc.StatusCode.UNAVAILABLE: 1.0, grpc.StatusCode.RESOURCE_EXHAUSTED: 1.0}
"""Default retry delay by status code, for errors without `retry_after_s`."""


def to_status(error: ServiceError) -> status_pb2.Status:
    """Convert an error to a google.rpc.Status with details."""
    code = CODES[error.reason]
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason.value, domain=DOMAIN, metadata=error.metadata
        )
    ]
    if error.fields:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field, description=violation.description
                    )
                    for violation in error.fields
                ]
            )
        )
    retry_after_s = (
        error.retry_after_s if error.retry_after_s is not None else RETRY_AFTER_S.get(code)
    )
    if retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(
        code=code.value[0], message=error.message, details=[_packed(detail) for detail in details]
    )


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
    status = rpc_status.from_call(cast("grpc.Call", error))
    known = from_status(status) if status is not None else None
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
