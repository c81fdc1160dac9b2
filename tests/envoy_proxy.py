"""A real Envoy for tests, with the configuration of deploy/envoy."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.ports import free_port

ROOT = Path(__file__).parents[1]
ENVOY = Path(sys.executable).parent / "envoy"
CONFIGURATION = ROOT / "deploy/envoy/envoy.yaml"
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class EnvoyProxy:
    """A running Envoy."""

    target: str
    """Address for calls, `host:port`."""
    admin: str
    """Address of the admin interface, `host:port`."""

    def counter(self, name: str) -> int:
        """Return a statistic of the Gateway cluster."""
        answer = self._ask(f"/stats?format=json&filter=^cluster\\.gateway\\.{name}$")
        return int(answer["stats"][0]["value"])

    def healthy(self) -> set[int]:
        """Return the ports of the Gateways that pass its health checks."""
        (cluster,) = self._ask("/clusters?format=json")["cluster_statuses"]
        return {
            host["address"]["socket_address"]["port_value"]
            for host in cluster["host_statuses"]
            if not host["health_status"].get("failed_active_health_check")
        }

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.admin}{path}") as answer:
            return json.load(answer)


@contextlib.contextmanager
def running_envoy(
    gateways: Sequence[str], folder: Path, *, calls_per_connection: int | None = None
) -> Iterator[EnvoyProxy]:
    """Run Envoy in front of Gateways; yield it when all of them pass its health checks.

    Args:
        gateways: addresses of the Gateways, `host:port`.
        folder: folder for the configuration and the log.
        calls_per_connection: calls after which those of a connection are refused; None: the rate
            of the configuration.
    """
    envoy = EnvoyProxy(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    file, log = folder / "envoy.yaml", folder / "envoy.log"
    config = configuration(envoy, gateways)
    if calls_per_connection is not None:
        limit_calls(config, calls_per_connection)
    file.write_text(yaml.safe_dump(config))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [ENVOY, "--config-path", file, "--concurrency", "1", "--use-dynamic-base-id"],
            stdout=output, stderr=output,
        )  # fmt: skip
    try:
        ports = {int(gateway.rpartition(":")[2]) for gateway in gateways}
        wait_until(lambda: answers(envoy, process) and envoy.healthy() == ports, log)
        yield envoy
    finally:
        process.terminate()
        process.wait()


def configuration(envoy: EnvoyProxy, gateways: Sequence[str]) -> dict[str, Any]:
    """Return the configuration with local addresses and frequent health checks."""
    config: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text())
    config["admin"]["address"] = address(envoy.admin)
    (listener,), (cluster,) = (config["static_resources"][key] for key in ("listeners", "clusters"))
    listener["address"] = address(envoy.target)
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    endpoints["lb_endpoints"] = [
        {"endpoint": {"address": address(gateway)}} for gateway in gateways
    ]
    cluster["type"] = "STATIC"
    del cluster["dns_refresh_rate"]
    (check,) = cluster["health_checks"]
    check |= {"interval": "0.1s", "no_traffic_interval": "0.1s"}
    return config


def limit_calls(config: dict[str, Any], count: int) -> None:
    """Let a connection make a number of calls, and one more each hour."""
    (listener,) = config["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    (manager,) = chain["filters"]
    limit = manager["typed_config"]["http_filters"][0]["typed_config"]
    limit["token_bucket"] = {"max_tokens": count, "tokens_per_fill": 1, "fill_interval": "3600s"}


def address(target: str) -> dict[str, Any]:
    host, port = target.split(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def answers(envoy: EnvoyProxy, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "Envoy exited"
    try:
        envoy.healthy()
    except OSError:
        return False
    return True


def wait_until(condition: Callable[[], bool], log: Path | None = None) -> None:
    """Wait until the condition holds; fail with the end of the log after `TIMEOUT_S`."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s, log.read_text()[-2000:] if log else "timed out"
        time.sleep(0.02)
