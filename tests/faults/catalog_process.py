"""A Catalog in a process group of its own, which can be killed as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc.aio

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from tests.contract.catalog.support import Catalog
from tests.ports import free_port

ROOT = Path(__file__).parents[2]

START_S = 60.0
"""Maximum time until a Catalog answers, in seconds."""

STOP_S = 30.0
"""Maximum time until a Catalog has stopped, in seconds."""

CALL_S = 30.0
"""Deadline of a call, in seconds."""


class StartError(Exception):
    """A Catalog ended, or did not answer in time, instead of starting."""


class CatalogProcess:
    """A running Catalog with a client."""

    def __init__(self, data_dir: Path, log: Path, **variables: str) -> None:
        """Start a Catalog; its output is appended to `log`.

        Args:
            data_dir: its data folder.
            log: file for its output, on another disk.
            variables: settings, without the prefix IMAGESEARCH_CATALOG_; a name with the prefix
                IMAGESEARCH_ is a variable of its own.
        """
        self._log = log
        port = free_port()
        settings = {"DATA_DIR": str(data_dir), "PORT": str(port), "GRACE_S": "2", **variables}
        environment = {
            name if name.startswith("IMAGESEARCH_") else f"IMAGESEARCH_CATALOG_{name}": value
            for name, value in settings.items()
        }
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "imagesearch_services.catalog"],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{port}",
            options=[
                ("grpc.max_receive_message_length", 64 << 20),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
            ],
        )
        self.client = Catalog(self.channel)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    async def ready(self) -> None:
        """Wait until the Catalog answers.

        Raises:
            StartError: it did not start.
        """
        call = asyncio.ensure_future(
            self.client.stub.ListLibraries(
                pb.ListLibrariesRequest(page_size=1), wait_for_ready=True, timeout=START_S
            )
        )
        try:
            while self.alive and not call.done():
                await asyncio.wait([call], timeout=0.05)
            if not call.done() or call.exception() is not None:
                raise StartError(f"the Catalog did not start:\n{self.last_lines()}")
        finally:
            call.cancel()

    async def ended(self) -> None:
        """Wait until the process has ended, for example at a failpoint."""
        await asyncio.to_thread(self.process.wait)

    async def kill(self) -> None:
        """Kill the Catalog, its engine and its index builder at the same moment."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await asyncio.to_thread(self.process.wait)
        await self._group_ended()
        await self.channel.close()

    async def stop(self) -> int:
        """Stop the Catalog as an operator does; return its exit status."""
        self.process.terminate()
        status = await asyncio.to_thread(self.process.wait, STOP_S)
        await self._group_ended()
        await self.channel.close()
        return status

    def last_lines(self, count: int = 3) -> str:
        """Return the last lines of the Catalog's output that are not about calls."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join([line[:300] for line in lines if "rpc.finished" not in line][-count:])

    async def _group_ended(self) -> None:
        """Wait until no process of the group is left, so that its disk can be unmounted."""
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.killpg(self.process.pid, 0)
                await asyncio.sleep(0.01)
