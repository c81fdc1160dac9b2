"""Ways to run the engine in a child process; all candidates run commands of the same `Engine`."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, Protocol

import grpc.aio

from imagesearch_services.catalog.edge.process import EngineProcess
from tests.benchmarks.engine_process.engine import EngineManager, execute, serve, settings

SPAWN = multiprocessing.get_context("spawn")


class Candidate(Protocol):
    """A started child process with an engine."""

    async def __call__(self, command: str, *arguments: Any) -> Any: ...


class Ours:
    """The `EngineProcess` of the Catalog."""

    def __init__(self) -> None:
        self._process: EngineProcess | None = None

    async def __call__(self, command: str, *arguments: Any) -> Any:
        if self._process is None:
            self._process = await EngineProcess.start(settings())
        if command == "pid":
            return self._process.pid
        return await self._process.command(command, *arguments)


class Pool:
    """An executor with one worker process."""

    def __init__(self, submit: Callable[..., Any]) -> None:
        self._submit = submit

    async def __call__(self, command: str, *arguments: Any) -> Any:
        return await asyncio.wrap_future(self._submit(execute, command, arguments))


class Blocking:
    """A blocking call that runs in a single thread."""

    def __init__(self, call: Callable[[str, tuple[Any, ...]], Any]) -> None:
        self._call = call
        self._thread: Executor = ThreadPoolExecutor(1)

    async def __call__(self, command: str, *arguments: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._call, command, arguments)


class Grpc:
    """gRPC over a Unix socket."""

    def __init__(self) -> None:
        path = f"{tempfile.mkdtemp()}/socket"
        subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.engine_process.grpc_server", path]
        )
        self._call = grpc.aio.insecure_channel(f"unix:{path}").unary_unary(
            "/engine/execute", request_serializer=pickle.dumps, response_deserializer=pickle.loads
        )

    async def __call__(self, command: str, *arguments: Any) -> Any:
        return await self._call((command, arguments), wait_for_ready=True)


def over(connection: Connection) -> Blocking:
    def call(command: str, arguments: tuple[Any, ...]) -> Any:
        connection.send((command, arguments))
        return connection.recv()

    return Blocking(call)


def connection() -> Candidate:
    parent_end, child_end = socket.socketpair()
    with child_end:
        number = child_end.fileno()
        command = [sys.executable, "-m", "tests.benchmarks.engine_process.engine", str(number)]
        subprocess.Popen(command, pass_fds=[number])
    return over(Connection(parent_end.detach()))


def pipe() -> Candidate:
    parent_end, child_end = SPAWN.Pipe()
    SPAWN.Process(target=serve, args=(child_end,)).start()
    child_end.close()
    return over(parent_end)


def manager() -> Candidate:
    running = EngineManager(ctx=SPAWN)
    running.start()
    remote = running.RemoteEngine()  # type: ignore[attr-defined]  # by `register`
    candidate = Blocking(remote.execute)
    candidate.manager = running  # type: ignore[attr-defined]  # ends with its last reference
    return candidate


def loky() -> Candidate:
    module = importlib.import_module("loky")
    return Pool(module.ProcessPoolExecutor(1, timeout=None).submit)


def pebble() -> Candidate:
    pool = importlib.import_module("pebble").ProcessPool(1, context=SPAWN)
    return Pool(lambda function, *arguments: pool.schedule(function, args=arguments))


CANDIDATES: dict[str, Callable[[], Candidate]] = {
    "ours": Ours,
    "connection": connection,
    "pipe": pipe,
    "manager": manager,
    "pool": lambda: Pool(ProcessPoolExecutor(1, mp_context=SPAWN).submit),
    "grpc": Grpc,
    "loky": loky,
    "pebble": pebble,
}
