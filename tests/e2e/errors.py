"""Helpers that read errors as a client does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.status import from_status


def refused(call: Callable[..., Any], request: Any, **options: Any) -> ServiceError:
    """Make a call that must fail and return its error."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, **options)
    return described(caught.value)


def described(error: Any) -> ServiceError:
    """Return the error with its details; fail if it has no details."""
    status = rpc_status.from_call(error)
    assert status is not None, f"no details: {error.code()} {error.details()}"
    return read(status)


def read(status: status_pb2.Status) -> ServiceError:
    infos = [
        detail for detail in status.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    ]
    assert len(infos) == 1, "exactly one ErrorInfo"
    error = from_status(status)
    assert error is not None
    return error
