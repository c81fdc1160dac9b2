"""Runs the Triton server that `imagesearch_services.models prepare` installs in `.models/`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from types import TracebackType

HOST = "127.0.0.1"
POLL_INTERVAL_S = 0.05
LOG_TAIL_LINES = 25
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # Triton uses this folder
INHERITED = ("HOME", "TMPDIR", "LANG", "IMAGESEARCH_MODEL_THREADS")


class TritonError(Exception):
    """Triton cannot be started or does not become ready."""


@dataclass(frozen=True)
class TritonPorts:
    """Ports of a Triton server."""

    grpc: int
    http: int
    metrics: int

    @classmethod
    def free(cls) -> TritonPorts:
        """Return three loopback ports without a listener."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for listener in sockets:
                listener.bind((HOST, 0))
            return cls(*(listener.getsockname()[1] for listener in sockets))

    @property
    def grpc_address(self) -> str:
        return f"{HOST}:{self.grpc}"

    @property
    def metrics_address(self) -> str:
        return f"{HOST}:{self.metrics}"


def triton_command(models_dir: Path, ports: TritonPorts) -> list[str]:
    """Return the command line. If a model fails to load, the server logs the error and ends."""
    server = models_dir / "triton/pytriton/tritonserver"
    return [
        str(server / "bin/tritonserver"),
        f"--model-repository={models_dir / 'repository'}",
        "--model-config-name=python",
        f"--backend-directory={server / 'backends'}",
        # Unique names in /dev/shm, so that files of a killed server can be identified and removed.
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix(ports)}",
        f"--grpc-address={HOST}",
        f"--grpc-port={ports.grpc}",
        f"--http-address={HOST}",
        f"--http-port={ports.http}",
        "--http-thread-count=1",
        f"--metrics-address={HOST}",
        f"--metrics-port={ports.metrics}",
        "--allow-gpu-metrics=false",
        "--disable-auto-complete-config",
    ]


def triton_environment(models_dir: Path) -> dict[str, str]:
    """Return the environment. The Python backend finds this interpreter, but not its packages.

    Raises:
        TritonError: the running interpreter has no shared library.
    """
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    libraries = [str(models_dir / "triton/nvidia_pytriton.libs"), str(python_library().parent)]
    return inherited | {
        "LD_LIBRARY_PATH": ":".join(libraries),
        # The embedded interpreter ignores PYTHONPATH and PYTHONHOME. It uses the virtual
        # environment of the first `python3` on the PATH.
        "PATH": f"{models_dir / 'backend-env/bin'}:{os.defpath}",
        # ONNX Runtime has its own threads; NumPy only concatenates arrays.
        "OPENBLAS_NUM_THREADS": "1",
    }


def python_library() -> Path:
    """Return the shared library of the running interpreter, which the Python backend embeds.

    Raises:
        TritonError: the library is not installed. Debian has a separate package for it.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = f"libpython{version}.so.1.0"
    folder = Path(sysconfig.get_config_var("LIBDIR") or "")
    architecture = sysconfig.get_config_var("MULTIARCH") or ""
    candidates = [
        folder / name,
        folder / architecture / name,
        Path(sys.base_prefix) / "lib" / name,
        Path("/usr/lib") / architecture / name,
    ]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise TritonError(
        f"{name} not found for {sys.executable}: install the package libpython{version}"
    )


def shared_memory_prefix(ports: TritonPorts) -> str:
    return f"imagesearch_triton_{ports.grpc}_"


class TritonProcess:
    """A Triton server. It can be started again after `stop` or a crash."""

    def __init__(self, models_dir: Path, ports: TritonPorts, log_path: Path) -> None:
        self.models_dir = models_dir.absolute()
        self.ports = ports
        self.log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        if self._process is None:
            raise TritonError("Triton was not started")
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process. `wait_ready` waits until it serves.

        Raises:
            TritonError: it is already running, or the models are not prepared.
        """
        if self.is_alive:
            raise TritonError(f"Triton is already running as process {self.pid}")
        command = triton_command(self.models_dir, self.ports)
        if not Path(command[0]).exists():
            raise TritonError(
                f"Triton not found in {self.models_dir}: "
                "run python -m imagesearch_services.models prepare"
            )
        self._clear_leftovers()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # command of this module
                command,
                env=triton_environment(self.models_dir),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # In its own process group, so that processes of the backend are killed with it, and
                # Ctrl-C in the terminal reaches only the runner, which stops the suite in order.
                start_new_session=True,
            )

    def wait_ready(self, timeout_s: float = 60) -> None:
        """Wait until all models are loaded and the health service reports SERVING.

        Raises:
            TritonError: the process ended or is not ready in time. The message contains the end of
                its log.
        """
        deadline = time.monotonic() + timeout_s
        with grpc.insecure_channel(
            self.ports.grpc_address, options=[("grpc.max_reconnect_backoff_ms", 200)]
        ) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while time.monotonic() < deadline:
                if not self.is_alive:
                    raise TritonError(f"Triton ended before it was ready\n{self._log_tail()}")
                with suppress(grpc.RpcError):
                    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                time.sleep(POLL_INTERVAL_S)
        raise TritonError(f"Triton is not ready after {timeout_s} s\n{self._log_tail()}")

    def stop(self, grace_s: float = 15) -> None:
        """Let running requests finish, then end the server and the processes of its backend."""
        if self._process is None:
            return
        if self.is_alive:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        self._clear_leftovers()

    def _clear_leftovers(self) -> None:
        """Kill the remaining processes of the last start and remove their shared memory."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        for region in SHARED_MEMORY.glob(f"{shared_memory_prefix(self.ports)}*"):
            region.unlink(missing_ok=True)

    def _log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()
        messages = [line for line in lines if line and line[0] not in "+|"]  # without tables
        return "\n".join(messages[-LOG_TAIL_LINES:])
