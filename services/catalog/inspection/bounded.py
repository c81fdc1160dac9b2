"""Calls in a child process with a limit of processor time: a damaged shard can't stop a check."""

from __future__ import annotations

import math
import multiprocessing
import resource
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Result = TypeVar("Result")


class CallLostError(Exception):
    """The process of a call ended before the call."""


class BoundedCalls:
    """Makes calls in a child process, which is started again after it was lost."""

    def __init__(self) -> None:
        # The engine's threads do not survive a fork.
        self._context = multiprocessing.get_context("spawn")
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def call(self, limit_s: float, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return the result of a call; functions, arguments and results are pickled.

        Raises:
            CallLostError: the call used `limit_s` of processor time, or crashed.
            Exception: what the function raised.
        """
        connection = self._connection or self._start()
        try:
            connection.send((limit_s, function, arguments))
            answer = connection.recv()
        except (EOFError, ConnectionError):
            status = self.close()
            raise CallLostError(_reason(status, limit_s)) from None
        if isinstance(answer, Exception):
            raise answer
        result: Result = answer
        return result

    def close(self) -> int | None:
        """End the child; return its exit status."""
        if self._process is None or self._connection is None:
            return None
        self._connection.close()
        self._process.join()
        status = self._process.exitcode
        self._process = self._connection = None
        return status

    def _start(self) -> Connection:
        connection, child_end = self._context.Pipe()
        self._connection = connection
        self._process = self._context.Process(target=_serve, args=(child_end,), daemon=True)
        self._process.start()
        child_end.close()
        return connection


def _serve(connection: Connection) -> None:
    """Make calls until the parent closes the connection or dies."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    while True:
        try:
            limit_s, function, arguments = connection.recv()
        except (EOFError, ConnectionError):
            return
        # The kernel ends the process with SIGXCPU, whatever holds the interpreter.
        end_s = math.ceil(time.process_time() + limit_s)
        resource.setrlimit(resource.RLIMIT_CPU, (end_s, hard))
        try:
            answer = function(*arguments)
        except Exception as error:  # noqa: BLE001  # the parent raises it
            answer = error
        connection.send(answer)


def _reason(status: int | None, limit_s: float) -> str:
    if status == -signal.SIGXCPU:
        return f"reading it does not end: it used {limit_s:.0f} s of processor time"
    return f"the engine crashed while reading it (exit status {status})"
