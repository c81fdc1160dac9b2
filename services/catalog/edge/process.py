"""The Catalog's side of the engine process: starts it, sends commands and receives answers.

The README of the Catalog compares this design with process pools and other libraries.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from imagesearch_services.catalog.edge import progress, protocol
from imagesearch_services.catalog.edge.files import disk_bytes
from imagesearch_services.catalog.edge.progress import POLL_S, Progress
from imagesearch_services.catalog.edge.protocol import Failure, FailureKind
from imagesearch_services.catalog.edge.settings import EdgeSettings
from imagesearch_services.catalog.edge.suspects import Cause, EngineEnd
from imagesearch_services.catalog.storage import (
    CollectionDamagedError,
    FolderLockedError,
    NewerFormatError,
    storage_error,
    storage_full,
)
from imagesearch_services.common.errors import ServiceError
from imagesearch_services.common.logs import logger

CLOSE_TIMEOUT_S = 20.0
"""Maximum time for the engine to flush and close its shards before it is killed, in seconds."""

READ_BUFFER_BYTES = 1 << 20
"""Size of the buffer for answers."""

EXIT_S = 1.0
"""Maximum time between the end of the connection and the exit of the process, in seconds."""

FOLDER_COMMANDS = frozenset({"ping", "read_identity", "write_identity", "survey"})
"""Commands on the data folder; the first argument of all others is the name of a collection."""


class _PendingCommand(NamedTuple):
    """A command without an answer yet."""

    method: str
    collection: str
    """Empty for commands on the data folder."""
    result: asyncio.Future[Any]
    sent_s: float
    """Time at which the command was sent, by the event loop's clock."""


class EngineProcess:
    """A running engine process. Commands run one at a time, in the order they are sent."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        folder: Path,
        on_end: Callable[[EngineEnd], None],
    ) -> None:
        self._process = process
        self._folder = folder
        self._on_end = on_end
        self._reader = reader
        self._writer = writer
        self._pending: deque[_PendingCommand] = deque()
        self.alive = True
        """False as soon as the process has ended."""
        self._closing = False
        self._overrun: _PendingCommand | None = None
        """The command that used too much processor time, for which the process was killed."""
        self._answered_count = 0
        self._progress = Progress(process.pid)
        self._reading = asyncio.create_task(self._read_answers())
        self._watching = asyncio.create_task(self._watch_progress())

    @classmethod
    async def start(
        cls, settings: EdgeSettings, on_end: Callable[[EngineEnd], None] = lambda _: None
    ) -> EngineProcess:
        """Start the process and open the data folder.

        Args:
            settings: settings of the engine.
            on_end: called if the process ends during a command on a collection, before the
                command fails. Not called for a process that was stopped or waited for a disk.

        Raises:
            FolderLockedError: another engine process holds the folder.
            NewerFormatError: a later version wrote the folder.
            ServiceError: STORAGE_UNAVAILABLE.
        """
        parent_end, child_end = socket.socketpair()
        with child_end:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "imagesearch_services.catalog.edge",
                str(child_end.fileno()),
                pass_fds=[child_end.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
            )
        reader, writer = await asyncio.open_unix_connection(
            sock=parent_end, limit=READ_BUFFER_BYTES
        )
        engine = cls(process, reader, writer, settings.folder, on_end)
        try:
            await engine._send("open", "", settings)
        except BaseException:
            await engine.close()
            raise
        return engine

    @property
    def pid(self) -> int:
        return self._process.pid

    async def command(self, method: str, *arguments: Any) -> Any:
        """Run a method of `Engine` and return its result.

        The command runs even when the caller is cancelled.

        Raises:
            ServiceError: STORAGE_UNAVAILABLE.
            CollectionDamagedError: the collection can't be opened.
        """
        return await self._send(method, collection_of(method, arguments), (method, arguments))

    @property
    def stuck(self) -> bool:
        """Whether the process is stopped, or has a command and makes no progress with it."""
        return self._progress.stuck

    def pending_methods(self) -> list[str]:
        """Return the methods of the unanswered commands, oldest first."""
        return [command.method for command in self._pending]

    def oldest_command_s(self) -> float | None:
        """Return the age of the oldest unanswered command; None if all are answered."""
        if not self._pending:
            return None
        return asyncio.get_running_loop().time() - self._pending[0].sent_s

    async def close(self) -> None:
        """Let the engine flush and close its shards; kill it after `CLOSE_TIMEOUT_S`."""
        self._closing = True
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            # Nothing is lost: acknowledged writes are in the write-ahead log.
            self._process.kill()
            await self._process.wait()
        await self._reading
        self._watching.cancel()

    async def _send(self, method: str, collection: str, message: object) -> Any:
        if not self.alive:
            raise storage_error()
        if self.stuck:
            raise storage_error("the storage engine makes no progress")
        data = protocol.encode(message)
        loop = asyncio.get_running_loop()
        command = _PendingCommand(method, collection, loop.create_future(), loop.time())
        # No await between append and write, because answers are matched to commands by order.
        self._pending.append(command)
        self._writer.write(data)
        return await command.result

    async def _read_answers(self) -> None:
        try:
            while True:
                answer = await protocol.read_async(self._reader)
                self._answered_count += 1
                _settle(self._pending.popleft().result, answer)
        except (EOFError, ConnectionError):
            pass
        finally:
            self.alive = False
            self._writer.close()
            self._watching.cancel()
            try:
                await self._report_end()
            finally:
                self._fail_pending(storage_error())
                self._pending.clear()

    async def _report_end(self) -> None:
        """Tell the owner which command was executed when the process ended."""
        command = self._overrun or (self._pending[0] if self._pending else None)
        if self._closing or command is None or not command.collection:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EXIT_S):
                await self._process.wait()
        status = self._process.returncode
        if self._overrun is not None:
            cause = Cause.OVERRUN
        elif status == -signal.SIGKILL:
            cause = Cause.KILLED
        else:
            cause = Cause.CRASH
        if not (self._progress.hopeless and self._progress.outside):
            self._on_end(EngineEnd(command.method, command.collection, cause, status))

    async def _watch_progress(self) -> None:
        """Fail the commands of a stuck process; kill it if it stays stuck or a command overruns."""
        loop = asyncio.get_running_loop()
        last_s, was_stuck, overran = loop.time(), False, None
        while True:
            await asyncio.sleep(POLL_S)
            now_s = loop.time()
            self._progress.update(
                waiting=bool(self._pending),
                answered=self._answered_count,
                elapsed_s=now_s - last_s,
            )
            last_s = now_s
            if self.stuck:
                # Their answers are dropped if the process continues.
                self._fail_pending(storage_error("the storage engine makes no progress"))
            if self.stuck != was_stuck:
                was_stuck = self.stuck
                logger().error("engine.stuck" if was_stuck else "engine.recovered", pid=self.pid)
            if self._progress.hopeless:
                # Nothing is lost: acknowledged writes are in the write-ahead log.
                logger().error("engine.killed", pid=self.pid, reason="no progress")
                self._process.kill()
                return
            # Twice, because an answer may have arrived that this process has not read yet.
            before, overran = overran, self._overrunning()
            if overran is not None and overran is before:
                logger().error("engine.killed", pid=self.pid, reason="too much processor time")
                self._overrun = overran
                self._process.kill()
                return

    def _overrunning(self) -> _PendingCommand | None:
        """Return the command being executed if it has used more processor time than it may."""
        used_s = self._progress.command_s
        if not self._pending or used_s <= progress.COMMAND_S:
            return None
        command = self._pending[0]
        if not command.collection:
            return None
        gib = disk_bytes(self._folder / command.collection) / (1 << 30)
        allowed_s = progress.COMMAND_S + gib * progress.COMMAND_S_PER_GIB
        return command if used_s > allowed_s else None

    def _fail_pending(self, error: ServiceError) -> None:
        for command in self._pending:
            if not command.result.done():
                command.result.set_exception(error)


def collection_of(method: str, arguments: tuple[Any, ...]) -> str:
    """Return the collection of a command; empty for commands on the data folder."""
    return "" if method in FOLDER_COMMANDS else str(arguments[0])


def _settle(result: asyncio.Future[Any], answer: Any) -> None:
    if result.done():  # the caller was cancelled
        return
    if isinstance(answer, Failure):
        result.set_exception(_exception(answer))
    else:
        result.set_result(answer)


def _exception(failure: Failure) -> Exception:
    if failure.kind is FailureKind.FOLDER_LOCKED:
        return FolderLockedError(failure.detail)
    if failure.kind is FailureKind.NEWER_FORMAT:
        return NewerFormatError(failure.detail)
    logger().error("engine.command_failed", kind=failure.kind.name, error=failure.detail)
    if failure.kind is FailureKind.COLLECTION_DAMAGED:
        return CollectionDamagedError(failure.detail)
    if failure.kind is FailureKind.DISK_FULL:
        return storage_full()
    return storage_error("the storage engine failed")
