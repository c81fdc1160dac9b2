"""The details of an `ImageSearchError`."""

from __future__ import annotations

import threading

import grpc
import pytest
from google.rpc.status_pb2 import Status

from imagesearch.client import Client, FieldViolation, ImageSearchError, Library
from tests.ports import free_port
from tests.unit.client.conftest import FakeGateway, status


def failed_call(gateway: FakeGateway, answer: Status | grpc.StatusCode) -> ImageSearchError:
    gateway.answers("GetLibrary", answer)
    with Client(gateway.target) as client, pytest.raises(ImageSearchError) as caught:
        client.get_library(name="libraries/shop")
    return caught.value


def test_an_error_has_its_reason_code_and_metadata(gateway: FakeGateway) -> None:
    error = failed_call(
        gateway,
        status(
            grpc.StatusCode.NOT_FOUND,
            "there is no library 'shop'",
            "LIBRARY_NOT_FOUND",
            metadata={"library": "libraries/shop"},
        ),
    )
    assert error.code is grpc.StatusCode.NOT_FOUND
    assert error.reason == "LIBRARY_NOT_FOUND"
    assert error.metadata == {"library": "libraries/shop"}
    assert error.field_violations == ()
    assert error.retry_after_s is None
    assert str(error) == "LIBRARY_NOT_FOUND: there is no library 'shop'"


def test_field_violations_and_retry_delay_are_read(gateway: FakeGateway) -> None:
    error = failed_call(
        gateway,
        status(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "busy",
            "OVERLOADED",
            fields={"name": "too long"},
            retry_after_s=1.5,
        ),
    )
    assert error.field_violations == (FieldViolation("name", "too long"),)
    assert error.retry_after_s == 1.5


def test_an_error_of_grpc_has_no_reason(gateway: FakeGateway) -> None:
    error = failed_call(gateway, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.reason == ""
    assert error.message == "refused by gRPC itself"


def test_an_unreachable_suite_is_unavailable() -> None:
    target = f"127.0.0.1:{free_port()}"
    with Client(target) as client, pytest.raises(ImageSearchError) as caught:
        client.get_library(name="libraries/shop")
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_passed_deadline_raises_deadline_exceeded(gateway: FakeGateway) -> None:
    call_ended = threading.Event()

    def answer_too_late(_request: object) -> Library:
        call_ended.wait(60)
        return Library()

    gateway.answers("GetLibrary", answer_too_late)
    with Client(gateway.target, timeout_s=0.1) as client, pytest.raises(ImageSearchError) as caught:
        client.get_library(name="libraries/shop")
    call_ended.set()
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_error_of_a_batch_item_equals_the_error_of_a_call() -> None:
    answer = status(grpc.StatusCode.ALREADY_EXISTS, "there", "IMAGE_ALREADY_EXISTS")
    error = ImageSearchError.from_status(answer)
    assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "IMAGE_ALREADY_EXISTS")
    assert error.status == answer
