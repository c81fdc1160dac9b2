"""The engine behind gRPC: `python -m tests.benchmarks.engine_process.grpc_server SOCKET`."""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from tests.benchmarks.engine_process.engine import execute


class GenericHandler(grpc.GenericRpcHandler):
    """A gRPC handler without a proto: messages are pickles."""

    def service(self, _: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            lambda request, _: execute(*request),
            request_deserializer=pickle.loads,
            response_serializer=pickle.dumps,
        )


def serve_grpc(path: str) -> None:
    server = grpc.server(ThreadPoolExecutor(1), handlers=[GenericHandler()])
    server.add_insecure_port(f"unix:{path}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve_grpc(sys.argv[1])
