"""Asks a server for its health: `python -m imagesearch_services.common.probe 127.0.0.1:50051`.

Exit status 0 where it serves, 1 where it does not: for container engines that can't ask gRPC
themselves. Kubernetes can, and needs no command.
"""

from __future__ import annotations

import argparse
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Status = health_pb2.HealthCheckResponse.ServingStatus


def probe(target: str, service: str, timeout_s: float) -> str:
    """Return the status that the server gives ("SERVING"), or why there is none ("UNAVAILABLE").

    Args:
        target: `host:port`.
        service: full service name; empty for the server as a whole.
        timeout_s: how long to wait for the answer.
    """
    with grpc.insecure_channel(target) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=timeout_s
            )
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(Status.Name(answer.status))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m imagesearch_services.common.probe", description="Asks grpc.health.v1."
    )
    parser.add_argument("target", help="host:port")
    parser.add_argument("--service", default="", help="full service name; default: the server")
    parser.add_argument("--timeout-s", type=float, default=3.0)
    options = parser.parse_args()
    status = probe(options.target, options.service, options.timeout_s)
    sys.stdout.write(f"{status}\n")
    return 0 if status == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main())
