"""Check the health of a server: `python -m imagesearch_services.common.probe 127.0.0.1:50051`.

The exit status is 0 if the server is SERVING, otherwise 1. Container engines without gRPC probes
need this command; Kubernetes has its own.
"""

from __future__ import annotations

import argparse
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Status = health_pb2.HealthCheckResponse.ServingStatus


def probe(target: str, service: str, timeout_s: float) -> str:
    """Return the health status ("SERVING"), or the code of the error ("UNAVAILABLE").

    Args:
        target: `host:port`.
        service: full name of the service; empty for the whole server.
        timeout_s: maximum time to wait for the response.
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
        prog="python -m imagesearch_services.common.probe",
        description="Check the health of a gRPC server.",
    )
    parser.add_argument("target", help="host:port")
    parser.add_argument(
        "--service", default="", help="full service name; default: the whole server"
    )
    parser.add_argument("--timeout-s", type=float, default=3.0)
    options = parser.parse_args()
    status = probe(options.target, options.service, options.timeout_s)
    sys.stdout.write(f"{status}\n")
    return 0 if status == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main())
