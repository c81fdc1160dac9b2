"""Conversion of errors to statuses and back."""

from urllib.parse import quote

import pytest

from imagesearch.type.v1 import error_reason_pb2
from imagesearch_services.common.errors import FieldViolation, Reason, ServiceError
from imagesearch_services.common.status import CODES, from_status, to_grpc, to_status


def test_reasons_are_those_of_the_proto() -> None:
    contract = {
        name.removeprefix("ERROR_REASON_")
        for name in error_reason_pb2.ErrorReason.keys()  # noqa: SIM118  # no dict
        if not name.endswith("_UNSPECIFIED")
    }
    assert set(Reason.__members__) == contract
    assert all(reason.value == name for name, reason in Reason.__members__.items())


def test_every_reason_has_a_status_code() -> None:
    assert set(CODES) == set(Reason)


@pytest.mark.parametrize("reason", list(Reason))
def test_an_error_survives_the_conversion_to_a_status_and_back(reason: Reason) -> None:
    error = ServiceError(
        reason,
        "what happened",
        metadata={"library": "libraries/a"},
        fields=[FieldViolation("image.content", "is required")],
        retry_after_s=2.5,
    )
    back = from_status(to_status(error))
    assert back is not None
    assert (back.reason, back.message, back.metadata, back.fields, back.retry_after_s) == (
        error.reason,
        error.message,
        error.metadata,
        error.fields,
        error.retry_after_s,
    )


def test_overload_has_a_default_retry_delay() -> None:
    back = from_status(to_status(ServiceError(Reason.OVERLOADED, "busy")))
    assert back is not None
    assert back.retry_after_s == 1.0


@pytest.mark.parametrize("letter", ["a", "é", "😀", "%"])
def test_long_values_of_a_request_do_not_outgrow_the_trailing_metadata(letter: str) -> None:
    text = letter * 100_000
    error = ServiceError(
        Reason.IMAGE_NOT_FOUND,
        text,
        metadata={"image": text, "library": text},
        fields=[FieldViolation(text, text)] * 100,
    )
    metadata = to_grpc(error)
    trailing = metadata.trailing_metadata[0][1]
    assert len(quote(metadata.details)) + len(trailing) * 4 // 3 < 8_000
    back = from_status(to_status(error))
    assert back is not None
    assert back.reason is Reason.IMAGE_NOT_FOUND
    assert back.metadata["image"].startswith(letter * 100)
    assert len(back.fields) >= 1
