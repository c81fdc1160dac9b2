"""Random requests to every RPC get documented answers, as in `tests.fuzz.requests`."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.status import to_status
from imagesearch_services.runner.suite import Suite
from tests.fuzz.requests.__main__ import run_part, targets
from tests.fuzz.requests.answers import outcome_of
from tests.fuzz.requests.caller import Caller
from tests.fuzz.requests.methods import methods
from tests.fuzz.requests.observer import Observer, unexpected

REQUESTS = 1_000


async def test_random_requests_get_documented_answers(suite: Suite) -> None:
    caller, observer = Caller(targets(suite), methods()), Observer(suite)
    list(observer.problems())  # of earlier tests
    try:
        await caller.populate()
        assert await run_part(caller, 0, 0, REQUESTS) == []
        assert list(await asyncio.to_thread(lambda: list(observer.problems()))) == []
        called = {name.rpartition(" ")[0] for name in caller.statistics.outcomes}
        assert len(called) >= len(methods())
    finally:
        await caller.remove_libraries()
        await caller.close()


def failed(status: status_pb2.Status | None, code: grpc.StatusCode) -> grpc.RpcError:
    """Return the error of a call that ended with a status."""
    metadata = () if status is None else rpc_status.to_status(status).trailing_metadata

    class Failed(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return code

        def details(self) -> str:
            return "" if status is None else status.message

        def trailing_metadata(self) -> Any:
            return metadata

    return Failed()


def test_a_wrong_answer_is_found() -> None:
    internal = to_status(ServiceError(Reason.INTERNAL, "oh"))
    assert outcome_of(failed(internal, grpc.StatusCode.INTERNAL), is_past_deadline=False)[1]
    assert outcome_of(failed(None, grpc.StatusCode.UNKNOWN), is_past_deadline=False)[1]
    assert outcome_of(failed(None, grpc.StatusCode.DEADLINE_EXCEEDED), is_past_deadline=False)[1]
    assert unexpected("catalog", b'{"event": "rpc.unexpected_error", "level": "error"}')
    refused = to_status(ServiceError(Reason.FILTER_INVALID, "position 3"))
    known = outcome_of(failed(refused, grpc.StatusCode.INVALID_ARGUMENT), is_past_deadline=False)
    assert known == ("FILTER_INVALID", "")
