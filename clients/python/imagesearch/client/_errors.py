"""The exception of a failed call, created from the google.rpc.Status of the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self, cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True)
class FieldViolation:
    """An invalid field of the request."""

    field: str
    """Path of the field, for example "region.x_min"."""
    description: str
    """Description of the problem."""


class ImageSearchError(Exception):
    """A call, or one item of a batch, failed.

    >>> try:
    ...     client.get_library(name="libraries/no-such")
    ... except ImageSearchError as error:
    ...     print(error.reason, error.code.name, dict(error.metadata))
    LIBRARY_NOT_FOUND NOT_FOUND {'library': 'libraries/no-such'}
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        metadata: Mapping[str, str] = MappingProxyType({}),
        field_violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
        status: status_pb2.Status | None = None,
    ) -> None:
        super().__init__(f"{reason or code.name}: {message}")
        self.message = message
        """Error message in English."""
        self.code = code
        """The gRPC status code."""
        self.reason = reason
        """Name of an ErrorReason without its prefix, for example "LIBRARY_NOT_FOUND". Empty if gRPC
        itself failed the call: no connection, a message over the size limit."""
        self.metadata = metadata
        """Details of the error; each ErrorReason documents its keys."""
        self.field_violations = tuple(field_violations)
        self.retry_after_s = retry_after_s
        """Seconds to wait before a retry, if the service asks for a retry."""
        self.status = status or status_pb2.Status(code=code.value[0], message=message)
        """The google.rpc.Status of the error."""

    @classmethod
    def from_status(cls, status: status_pb2.Status) -> Self:
        """Return the error of a batch item."""
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        for detail in status.details:
            _ = detail.Unpack(info) or detail.Unpack(bad_request) or detail.Unpack(retry)
        return cls(
            status.message,
            code=CODES.get(status.code, grpc.StatusCode.UNKNOWN),
            reason=info.reason,
            metadata=dict(info.metadata),
            field_violations=[
                FieldViolation(violation.field, violation.description)
                for violation in bad_request.field_violations
            ],
            retry_after_s=retry.retry_delay.ToMilliseconds() / 1000
            if retry.HasField("retry_delay")
            else None,
            status=status,
        )

    @classmethod
    def from_rpc_error(cls, error: grpc.RpcError) -> Self:
        """Return the error of a failed call; the errors that stubs raise are also a `grpc.Call`."""
        call = cast("grpc.Call", error)
        try:
            status = rpc_status.from_call(call)
        except ValueError:
            # A proxy changed the status code, so the details describe a different error.
            status = None
        if status is not None:
            return cls.from_status(status)
        return cls(call.details() or "", code=call.code())
