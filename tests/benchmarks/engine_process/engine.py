"""The engine in the child process: `python -m tests.benchmarks.engine_process.engine FD`."""

from __future__ import annotations

import os
import sys
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

from imagesearch_services.catalog.edge.engine import Engine
from imagesearch_services.catalog.edge.settings import EdgeSettings

FOLDER = "BENCHMARK_ENGINE_FOLDER"
"""Environment variable with the data folder."""


def settings() -> EdgeSettings:
    return EdgeSettings(
        folder=Path(os.environ[FOLDER]),
        min_free_bytes=0,
        indexing_threshold=0,
        hnsw_m=16,
        hnsw_ef_construct=100,
        hnsw_ef=128,
        indexing_threads=1,
        segments=1,
    )


@cache
def engine() -> Engine:
    return Engine(settings())


def execute(command: str, arguments: tuple[Any, ...]) -> Any:
    return os.getpid() if command == "pid" else engine().execute(command, arguments)


def serve(connection: Connection) -> None:
    try:
        while True:
            connection.send(execute(*connection.recv()))
    except EOFError:
        pass


class RemoteEngine:
    """The object behind the proxy of a `multiprocessing` manager."""

    def execute(self, command: str, arguments: tuple[Any, ...]) -> Any:
        return execute(command, arguments)


class EngineManager(BaseManager):
    """A manager that serves `RemoteEngine` objects."""


EngineManager.register("RemoteEngine", RemoteEngine)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
