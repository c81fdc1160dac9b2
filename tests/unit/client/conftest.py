"""A fake Gateway with scripted answers, in the process of the test.

It is for tests of the client's own logic; the tests in tests/e2e use the real suite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, cast

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from imagesearch.gateway.v1 import image_search_service_pb2_grpc as service


def status(
    code: grpc.StatusCode,
    message: str,
    reason: str,
    *,
    metadata: dict[str, str] | None = None,
    fields: dict[str, str] | None = None,
    retry_after_s: float | None = None,
) -> Status:
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=reason, domain="imagesearch", metadata=metadata)
    ]
    if fields:
        violation = error_details_pb2.BadRequest.FieldViolation
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    violation(field=field, description=text) for field, text in fields.items()
                ]
            )
        )
    if retry_after_s is not None:
        delay = Duration()
        delay.FromMilliseconds(round(retry_after_s * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = [AnyMessage() for _ in details]
    for target, detail in zip(packed, details, strict=True):
        target.Pack(detail)
    return Status(code=code.value[0], message=message, details=packed)


Answer: TypeAlias = Message | Status | grpc.StatusCode | Callable[[Any], Message | Status]


class FakeGateway:
    """Returns the scripted answers of each method in turn; the last answer repeats."""

    def __init__(self) -> None:
        self.target = ""
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self._answers: dict[str, list[Answer]] = {}
        for method in service.ImageSearchServiceServicer.__dict__:
            if method[0].isupper():
                setattr(self, method, self._handler(method))

    def answers(self, method: str, *answers: Answer) -> None:
        self._answers[method] = list(answers)

    def _handler(self, method: str) -> Callable[[Any, grpc.ServicerContext], Message]:
        def handle(request: Any, context: grpc.ServicerContext) -> Message:
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            scripted = self._answers[method]
            answer = scripted.pop(0) if len(scripted) > 1 else scripted[0]
            if not isinstance(answer, (Message, grpc.StatusCode)):
                answer = answer(request)
            if isinstance(answer, Status):
                context.abort_with_status(rpc_status.to_status(answer))
            if isinstance(answer, grpc.StatusCode):
                context.abort(answer, "refused by gRPC itself")
            return answer

        return handle


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    fake = FakeGateway()
    with ThreadPoolExecutor() as pool:
        server = grpc.server(pool, options=[("grpc.max_receive_message_length", 2**26)])
        service.add_ImageSearchServiceServicer_to_server(cast("Any", fake), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        fake.target = f"127.0.0.1:{port}"
        yield fake
        server.stop(None).wait()


def request_ids(requests: Sequence[Any]) -> list[str]:
    return [request.request_id for request in requests]
