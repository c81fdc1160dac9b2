"""Opens and decodes pictures in worker processes, under limits of time and memory.

Tasks have three lanes: headers, pictures that are decoded fast, and large pictures. A lane has a
fixed number of places. A task that takes more processor time than its lane allows loses its place
to the next task and goes on at the lowest priority, so that it delays no other caller; only a few
tasks may do so. A worker that exceeds its limits, stops or dies is replaced.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from PIL import Image

from imagesearch_services.common.errors import Reason, ServiceError
from imagesearch_services.common.logs import logger
from imagesearch_services.embedding.cage.lanes import Lane, Place
from imagesearch_services.embedding.cage.processes import ProcessLostError, WorkerProcess, Zygote
from imagesearch_services.embedding.cage.protocol import (
    MAX_MESSAGE_BYTES,
    Message,
    pack,
    pixels_in,
    read_error,
    unpack,
)
from imagesearch_services.embedding.cage.tasks import (
    Budget,
    Limits,
    is_fast,
    probe,
    read_decoded,
    read_opened,
)
from imagesearch_services.embedding.pictures import limits as picture_limits
from imagesearch_services.embedding.pictures.opened_file import OpenedFile
from imagesearch_services.embedding.pictures.picture import Picture
from imagesearch_services.embedding.slow_work import give_up_turn

ATTEMPTS = 3
"""Maximum attempts at a task whose worker died without a fault of the picture."""
WATCH_S = 0.1
"""Interval at which a running task is watched, in seconds."""
MAX_TASKS_PER_WORKER = 2000
"""Tasks after which a worker is replaced, which bounds what a decoder may leak."""
REPORT_TIMEOUT_S = 2.0
"""Maximum wait for the exit status of a worker that has ended, in seconds."""
MAX_WAITING = 64
"""Maximum pictures that wait for their header to be read."""
MAX_WAITING_BYTES = 256 * 1024 * 1024
"""Maximum size of the files that wait for their header to be read, in bytes."""
MAX_PIXELS_IN_LOOP = 400_000
"""Maximum pixels that are copied in the event loop, which takes 0.5 ms; more in a thread."""
PROBE_TIMEOUT_S = 2.0
"""Time in which a tiny picture must be decoded for the service to be healthy, in seconds."""

BUDGET = Budget()
"""Processor time that tasks may take by default."""

COSTLY_SIGNALS = {-signal.SIGPROF, -signal.SIGXCPU}
"""Exit statuses of a worker that has used up its processor time."""
CRASH_SIGNALS = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL}
"""Exit statuses of a worker whose decoder has crashed."""


class Cage:
    """Reads the headers of picture files and decodes them; implements `Decoder`."""

    def __init__(self, *, workers: int, overload_retry_s: float, budget: Budget = BUDGET) -> None:
        """Prepare the lanes; processes start when they are needed.

        Args:
            workers: number of pictures of each kind, fast and large, to decode at once.
            overload_retry_s: seconds after which a refused caller should retry.
            budget: processor time that tasks may take.
        """
        self._budget = budget
        self._overload_retry_s = overload_retry_s
        self._zygote = Zygote()
        self._headers = Lane(places=max(2, workers), nice=0)
        self._fast = Lane(places=workers, nice=0)
        self._large = Lane(places=workers, nice=3)
        self._max_demoted = max(2, workers)
        self._demoted = 0
        self._waiting = 0
        self._waiting_bytes = 0
        self._probing: asyncio.Task[None] | None = None

    async def open(self, content: bytes) -> OpenedFile:
        """Read the header of a picture file, see `Decoder.open`."""
        picture_limits.check_bytes(len(content))
        if self._waiting >= MAX_WAITING or (
            self._waiting and self._waiting_bytes + len(content) > MAX_WAITING_BYTES
        ):
            raise self._overloaded("too many pictures wait to be opened; retry later")
        self._waiting += 1
        self._waiting_bytes += len(content)
        try:
            return await self._open(content)
        finally:
            self._waiting -= 1
            self._waiting_bytes -= len(content)

    async def decode(self, file: OpenedFile, reduction: float) -> Picture:
        """Decode a picture, see `Decoder.decode`."""
        limits = self._budget.decoding_limits(file)
        request = {"task": "decode", "reduction": reduction}
        lane = self._fast if is_fast(file) else self._large
        async with self._answered(lane, request, file.content, limits) as (worker, answer):
            decoded = read_decoded(answer, file)
            try:
                if decoded.pixels <= MAX_PIXELS_IN_LOOP:
                    image = _image(worker, decoded.width, decoded.height)
                else:
                    image = await _in_thread(worker, decoded.width, decoded.height)
            finally:
                worker.free_memory(3 * decoded.pixels)
        return Picture(image, decoded.shown_width, decoded.shown_height)

    async def check(self) -> None:
        """Decode a tiny picture.

        Raises:
            ProcessLostError: no worker has decoded it in time.
        """
        # A probe that hangs is not cancelled: its worker would be killed again and again.
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe())
        done, _ = await asyncio.wait([self._probing], timeout=PROBE_TIMEOUT_S)
        if not done:
            raise ProcessLostError("no worker decodes pictures")
        await self._probing

    def start(self) -> None:
        """Start the first workers before the first call needs them."""
        self._probing = asyncio.create_task(self._probe())

    def close(self) -> None:
        """Kill all worker processes."""
        if self._probing is not None:
            self._probing.cancel()
        for lane in (self._headers, self._fast, self._large):
            lane.close()
        self._zygote.close()

    async def _open(self, content: bytes) -> OpenedFile:
        async with self._answered(
            self._headers, {"task": "open"}, content, self._budget.header_limits(content)
        ) as (_, answer):
            return read_opened(answer, content)

    async def _probe(self) -> None:
        content = probe()
        await self.decode(await self._open(content), 1)

    @asynccontextmanager
    async def _answered(
        self, lane: Lane, request: Message, content: bytes, limits: Limits
    ) -> AsyncIterator[tuple[WorkerProcess, Message]]:
        """Run a task; yield its answer and the worker, whose memory must then not be used again.

        Raises:
            ServiceError: an IMAGE_… reason or OVERLOADED.
        """
        request = request | {
            "size": len(content),
            "cpu_s": limits.cpu_s,
            "memory_bytes": limits.memory_bytes,
        }
        async with lane.place() as place:
            worker, answer = await self._run(place, request, content, limits)
            try:
                yield worker, _checked(answer)
            except ServiceError:
                raise
            except BaseException:
                worker.is_used_up = True
                raise
            finally:
                self._leave(place, worker)

    async def _run(
        self, place: Place, request: Message, content: bytes, limits: Limits
    ) -> tuple[WorkerProcess, Message]:
        for attempt in range(1, ATTEMPTS + 1):
            worker = None
            try:
                worker = place.lane.idle_worker() or await self._zygote.fork()
                worker.lower_priority(place.lane.nice)
                return worker, await self._answer(place, worker, request, content, limits)
            except BaseException as error:
                if worker is not None:
                    self._drop(place, worker)
                if not isinstance(error, ProcessLostError):
                    raise
                await self._judge(worker, limits, attempt)
        raise self._overloaded("the worker processes end; retry later")

    async def _answer(
        self,
        place: Place,
        worker: WorkerProcess,
        request: Message,
        content: bytes,
        limits: Limits,
    ) -> Message:
        """Send a request to a worker and wait for the answer.

        Raises:
            ProcessLostError: the worker has ended or is stopped.
            ServiceError: the task takes too much time.
        """
        loop = asyncio.get_running_loop()
        worker.memory[: len(content)] = content
        began_s, began_cpu_s = loop.time(), worker.cpu_s()
        try:
            worker.connection.send(pack(request))
            receiving = loop.create_task(loop.sock_recv(worker.connection, MAX_MESSAGE_BYTES))
            try:
                while not (await asyncio.wait([receiving], timeout=WATCH_S))[0]:
                    self._watch(
                        place, worker, limits, loop.time() - began_s, worker.cpu_s() - began_cpu_s
                    )
                packet = receiving.result()
            finally:
                receiving.cancel()
            if not packet:
                raise ProcessLostError("the worker has ended")
            return unpack(packet)
        except (OSError, ValueError) as error:
            raise ProcessLostError("the worker does not answer") from error

    def _watch(
        self, place: Place, worker: WorkerProcess, limits: Limits, took_s: float, cpu_s: float
    ) -> None:
        """Look after a task that runs for longer than most.

        Raises:
            ProcessLostError: the worker is stopped.
            ServiceError: the task takes too much time.
        """
        if worker.is_stopped():
            raise ProcessLostError("the worker is stopped")
        if cpu_s > limits.cpu_s + WATCH_S:
            raise limits.exceeded()
        if took_s > limits.wall_s:
            raise self._overloaded("the processors are busy; retry later")
        if cpu_s > limits.expected_cpu_s:
            give_up_turn()
        if cpu_s > limits.expected_cpu_s and not place.is_demoted and place.lane is not self._large:
            if self._demoted >= self._max_demoted:
                raise self._overloaded("other costly pictures are being decoded; retry later")
            self._demoted += 1
            place.demote()
            worker.is_used_up = True
            worker.lower_priority(19)

    async def _judge(self, worker: WorkerProcess | None, limits: Limits, attempt: int) -> None:
        """Find out why a worker has ended; return if the task is worth another attempt.

        Raises:
            ServiceError: the picture is the cause, or probably is.
        """
        if worker is None:
            return
        status = None
        with suppress(TimeoutError):
            async with asyncio.timeout(REPORT_TIMEOUT_S):
                status = await asyncio.shield(worker.ended)
        logger().warning("cage.worker_ended", status=status, attempt=attempt)
        if status in COSTLY_SIGNALS:
            raise limits.exceeded()
        if status in CRASH_SIGNALS:
            raise picture_limits.unreadable("the picture file is damaged")

    def _leave(self, place: Place, worker: WorkerProcess) -> None:
        """Keep the worker for the next task, or replace it."""
        worker.tasks += 1
        if worker.is_used_up or worker.tasks >= MAX_TASKS_PER_WORKER:
            self._drop(place, worker)
        else:
            place.lane.keep(worker)

    def _drop(self, place: Place, worker: WorkerProcess) -> None:
        worker.close()
        if place.is_demoted:
            place.is_demoted = False
            self._demoted -= 1

    def _overloaded(self, message: str) -> ServiceError:
        return ServiceError(Reason.OVERLOADED, message, retry_after_s=self._overload_retry_s)


def _checked(answer: Message) -> Message:
    if "error" in answer:
        raise read_error(answer)
    return answer


def _image(worker: WorkerProcess, width: int, height: int) -> Image.Image:
    return Image.fromarray(pixels_in(worker.memory, height, width))


async def _in_thread(worker: WorkerProcess, width: int, height: int) -> Image.Image:
    """Copy a large picture in a thread; wait for it even if the caller is cancelled."""
    copying = asyncio.ensure_future(asyncio.to_thread(_image, worker, width, height))
    try:
        return await asyncio.shield(copying)
    except asyncio.CancelledError:
        await asyncio.wait([copying])
        raise
