"""Places for the tasks of one kind, and the idle workers that wait for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from imagesearch_services.embedding.cage.processes import WorkerProcess


class Lane:
    """A number of places for tasks; further tasks wait in order."""

    def __init__(self, *, places: int, nice: int) -> None:
        """Prepare the places.

        Args:
            places: number of tasks that run at once.
            nice: priority of the workers, see nice(2).
        """
        self.nice = nice
        self._places = places
        self._free = asyncio.Semaphore(places)
        self._idle: deque[WorkerProcess] = deque()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """Hold a place for a task, unless the task is demoted."""
        await self._free.acquire()
        place = Place(self)
        try:
            yield place
        finally:
            place.release()

    def idle_worker(self) -> WorkerProcess | None:
        """Take the worker that was used last, whose memory is warm; None if none is idle."""
        while self._idle:
            worker = self._idle.pop()
            if not worker.ended.done():
                return worker
            worker.close()
        return None

    def keep(self, worker: WorkerProcess) -> None:
        """Keep a worker for the next task."""
        if len(self._idle) < self._places:
            self._idle.append(worker)
        else:
            worker.close()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def give_back(self) -> None:
        self._free.release()


class Place:
    """A task's place in a lane."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.is_demoted = False
        """Whether the task goes on without a place."""
        self._is_held = True

    def demote(self) -> None:
        """Give the place to the next task, although this one goes on."""
        self.is_demoted = True
        self.release()

    def release(self) -> None:
        if self._is_held:
            self._is_held = False
            self.lane.give_back()
