"""Command line and environment of the Triton server in `.models/`."""

from __future__ import annotations

import os
import socket
import sys
import sysconfig
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
INHERITED = ("HOME", "TMPDIR", "LANG", "IMAGESEARCH_MODEL_THREADS")


class TritonError(Exception):
    """Triton cannot be started."""


@dataclass(frozen=True)
class TritonPorts:
    """Ports of a Triton server on the loopback address."""

    grpc: int
    http: int
    metrics: int

    @classmethod
    def free(cls) -> TritonPorts:
        """Return three free ports of the loopback address."""
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
    """Return the command line. If a model fails to load, the server logs the error and exits."""
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
    """Return the environment variables of the server.

    With them, the Python backend embeds the running interpreter, but not its packages.

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
