"""A real Triton server for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from imagesearch_services.models.common.prepared import DEPLOY_DIR, MODELS_DIR, prepared_models
from imagesearch_services.runner.triton import (
    TritonError,
    TritonPorts,
    shared_memory_prefix,
    triton_command,
    triton_environment,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

__all__ = ["DEPLOY_DIR", "MODELS_DIR", "TritonProcess", "prepared_models", "running_triton"]

POLL_INTERVAL_S = 0.05
LOG_TAIL_LINES = 25
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # Triton uses this folder


@contextmanager
def running_triton() -> Iterator[TritonProcess]:
    """Run Triton with all models on free ports, which are in `.ports`.

    As a fixture:

        @pytest.fixture(scope="session")
        def triton() -> Iterator[TritonProcess]:
            with running_triton() as triton:
                yield triton
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "triton.log"
        with TritonProcess(prepared_models(), TritonPorts.free(), log) as triton:
            triton.wait_ready()
            yield triton


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
            self._process = subprocess.Popen(  # command of this module
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
