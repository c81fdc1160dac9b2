"""The suite on one machine: its processes, their order and their ports."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagesearch_services.common.probe import probe
from imagesearch_services.runner.processes import POLL_S, Command, Process, StartError, launch
from imagesearch_services.runner.shared_memory import remove_stale_regions
from imagesearch_services.runner.triton import TritonPorts, triton_command, triton_environment

HOST = "127.0.0.1"
START_TIMEOUT_S = 120.0
STOP_GRACE_S = 20.0
STATE_FILE = "suite.json"


@dataclass(frozen=True, kw_only=True)
class SuiteSettings:
    """Settings of a suite."""

    port: int
    """Port of the Gateway. Other servers use free ports."""
    data_dir: Path
    """Folder of libraries, logs and the state of the suite."""
    models_dir: Path
    """Folder that `python -m imagesearch_services.models prepare` created."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Additional environment variables of the services."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Ports of a running suite."""

    gateway: int
    gateway_metrics: int
    embedding: int
    embedding_metrics: int
    catalog: int
    catalog_metrics: int
    triton_grpc: int
    triton_http: int
    triton_metrics: int

    @classmethod
    def choose(cls, gateway: int) -> Ports:
        names = [field.name for field in dataclasses.fields(cls) if field.name != "gateway"]
        return cls(gateway=gateway, **dict(zip(names, free_ports(len(names)), strict=True)))


class Suite:
    """The processes of the suite. They outlive this object: `load` finds them again.

    Example:
        >>> suite = Suite.start(settings)  # doctest: +SKIP
        >>> suite.target  # doctest: +SKIP
        '127.0.0.1:50051'
        >>> suite.stop()  # doctest: +SKIP
    """

    ORDER = ("triton", "catalog", "embedding", "gateway")
    """Start order: each process depends on earlier ones. The stop order is the reverse."""

    def __init__(
        self, settings: SuiteSettings, ports: Ports, processes: Mapping[str, Process]
    ) -> None:
        self.settings = settings
        self.ports = ports
        self.processes = dict(processes)

    @property
    def target(self) -> str:
        """Address of the Gateway."""
        return f"{HOST}:{self.ports.gateway}"

    @classmethod
    def start(
        cls, settings: SuiteSettings, report: Callable[[str], None] = lambda _: None
    ) -> Suite:
        """Start all processes and return when they serve.

        Args:
            settings: settings of the suite.
            report: called with a line for each process that is started.

        Raises:
            StartError: a process did not start. All others are stopped.
        """
        if not port_is_free(settings.port):
            raise StartError(f"port {settings.port} is in use; choose another with PORT=…")
        suite = cls(settings, Ports.choose(settings.port), {})
        try:
            for name in cls.ORDER:
                report(f"starting {name}")
                suite.launch(name)
            for name in cls.ORDER:
                suite.wait_serving(name)
        except BaseException:
            suite.stop()
            raise
        return suite

    @classmethod
    def load(cls, data_dir: Path) -> Suite | None:
        """Return the suite that was started on this data folder, or None."""
        try:
            state = json.loads((data_dir / STATE_FILE).read_text())
        except FileNotFoundError:
            return None
        settings = SuiteSettings(
            port=state["ports"]["gateway"],
            data_dir=data_dir,
            models_dir=Path(state["models_dir"]),
        )
        processes = {name: Process(**fields) for name, fields in state["processes"].items()}
        return cls(settings, Ports(**state["ports"]), processes)

    def launch(self, name: str) -> None:
        """Start a process. A restarted process has the same ports as before."""
        if name == "triton":
            remove_stale_regions()
        self.processes[name] = launch(self.command(name))
        self._save()

    def wait_serving(self, name: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until a process serves.

        Raises:
            StartError: it ended, or does not serve after `timeout_s` seconds.
        """
        process = self.processes[name]
        deadline_s = time.monotonic() + timeout_s
        while not self.is_serving(name):
            if not process.is_alive():
                raise StartError(f"{name} ended:\n{process.log_tail()}")
            if time.monotonic() > deadline_s:
                raise StartError(
                    f"{name} does not serve after {timeout_s:.0f} s:\n{process.log_tail()}"
                )
            time.sleep(POLL_S)

    def is_serving(self, name: str) -> bool:
        port = self.ports.triton_grpc if name == "triton" else getattr(self.ports, name)
        return answers_serving(f"{HOST}:{port}")

    def is_alive(self) -> bool:
        """Return whether all processes run."""
        return len(self.processes) == len(self.ORDER) and all(
            process.is_alive() for process in self.processes.values()
        )

    def stop(self) -> None:
        """Stop all processes gracefully and remove the state file."""
        for name in reversed(self.ORDER):
            if name in self.processes:
                self.processes[name].stop(STOP_GRACE_S)
        remove_stale_regions()
        (self.settings.data_dir / STATE_FILE).unlink(missing_ok=True)

    def command(self, name: str) -> Command:
        """Return the command of a process."""
        log_file = self.settings.data_dir / "logs" / f"{name}.log"
        if name == "triton":
            ports = TritonPorts(
                grpc=self.ports.triton_grpc,
                http=self.ports.triton_http,
                metrics=self.ports.triton_metrics,
            )
            arguments = triton_command(self.settings.models_dir, ports)
            environment = triton_environment(self.settings.models_dir)
        else:
            arguments = [sys.executable, "-m", f"imagesearch_services.{name}"]
            environment = {**os.environ, **self._wiring(name), **self.settings.environment}
        return Command(name=name, arguments=arguments, environment=environment, log_file=log_file)

    def _wiring(self, name: str) -> dict[str, str]:
        """Return the settings of a service that connect it to the others."""
        ports = self.ports
        prefix = f"IMAGESEARCH_{name.upper()}_"
        addresses = {
            "HOST": HOST,
            "PORT": str(getattr(ports, name)),
            "METRICS_PORT": str(getattr(ports, f"{name}_metrics")),
        }
        dependencies = {
            "catalog": {"DATA_DIR": str(self.settings.data_dir)},
            "embedding": {"TRITON_TARGET": f"{HOST}:{ports.triton_grpc}"},
            "gateway": {
                "EMBEDDING_TARGET": f"{HOST}:{ports.embedding}",
                "CATALOG_TARGET": f"{HOST}:{ports.catalog}",
            },
        }
        return {prefix + key: value for key, value in {**addresses, **dependencies[name]}.items()}

    def _save(self) -> None:
        state = {
            "ports": dataclasses.asdict(self.ports),
            "models_dir": str(self.settings.models_dir),
            "processes": {
                name: dataclasses.asdict(process) for name, process in self.processes.items()
            },
        }
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        file = self.settings.data_dir / STATE_FILE
        draft = file.with_suffix(".new")
        draft.write_text(json.dumps(state, indent=2))
        draft.rename(file)


def answers_serving(target: str) -> bool:
    """Return whether a server reports SERVING. Triton has the same health service."""
    return probe(target, service="", timeout_s=2.0) == "SERVING"


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return distinct free ports."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
