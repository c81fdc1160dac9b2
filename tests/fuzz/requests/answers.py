"""Judges the answers to random requests."""

from __future__ import annotations

import re
from collections.abc import Iterator

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from imagesearch_services.common.errors import Reason
from imagesearch_services.common.status import CODES, DOMAIN

WRONG = {"INTERNAL", "NOT_IMPLEMENTED", "LIBRARY_DAMAGED", "IMAGE_DAMAGED"}
"""Reasons that no request may lead to."""

OWN_DEADLINE = "deadline of the caller"
"""Outcome of a call that its caller gave up."""

TRANSPORT = (
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than max"),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "metadata size exceeds"),
    (grpc.StatusCode.INTERNAL, "Internal error from Core"),  # of the client: the stream had ended
)
"""Errors of gRPC itself, which have no details: code, and a part of the message. A call whose
deadline passed or that its caller cancelled has none either."""


def outcome_of(error: grpc.RpcError, *, is_past_deadline: bool) -> tuple[str, str]:
    """Return the reason of an error for the statistics, and what is wrong with it, or ""."""
    code, text = error.code(), error.details() or ""
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        return code.name, f"{code.name} contradicts its details: {shape(text)}"
    if status is None:
        if (
            code in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
            and is_past_deadline
        ):
            return OWN_DEADLINE, ""
        if any(code is known and part in text for known, part in TRANSPORT):
            return "limit of gRPC", ""
        return code.name, f"{code.name} without details: {shape(text)}"
    return _judge(status, code)


def wrong_items(response: Message) -> Iterator[str]:
    """Yield what is wrong with the errors inside of a response, as those of batches."""
    for field, value in response.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for item in value if field.is_repeated else (value,):
            if isinstance(item, status_pb2.Status):
                wrong = _judge(item, None)[1]
                if wrong:
                    yield f"item: {wrong}"
            else:
                yield from wrong_items(item)


def _judge(status: status_pb2.Status, code: grpc.StatusCode | None) -> tuple[str, str]:
    infos = [error_details_pb2.ErrorInfo() for _ in status.details]
    known = [
        info for info, detail in zip(infos, status.details, strict=True) if detail.Unpack(info)
    ]
    if len(known) != 1 or known[0].domain != DOMAIN or known[0].reason not in Reason.__members__:
        return "no reason", f"{len(known)} ErrorInfo: {shape(status.message)}"
    reason = Reason[known[0].reason]
    if reason in WRONG:
        return reason.value, f"{reason}: {shape(status.message)}"
    if status.code != CODES[reason].value[0] or (code is not None and code is not CODES[reason]):
        return reason.value, f"{reason} with status code {status.code}"
    return reason.value, ""


def shape(text: str) -> str:
    """Return a message without its numbers and names, so that equal failures have equal texts."""
    return re.sub(r"[0-9a-f]{8,}|\d+", "#", text)[:120]
