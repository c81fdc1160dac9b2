"""Random changes to a Catalog by several callers at once, noted in a model."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import grpc.aio

from imagesearch.catalog.v1 import catalog_service_pb2 as pb
from imagesearch_services.common.errors import Reason
from imagesearch_services.common.status import from_rpc_error
from tests.contract.catalog.support import Catalog
from tests.faults.model import Answered, EntryState, LibraryModel, Model

MAX_BATCH = 12
"""Maximum entries of a put."""

REFUSED = (Reason.STORAGE_FULL, Reason.FIELD_INVALID)
"""Reasons of a refused call, which changed nothing; after other errors, it may have happened."""


class Caller:
    """One caller with libraries and image ids of its own, whose calls follow one another."""

    def __init__(self, catalog: Catalog, model: Model, name: str, seed: int) -> None:
        self._catalog = catalog
        self._model = model
        self._name = name
        self._random = random.Random(seed)  # noqa: S311  # repeatable, not secret
        self._count = sum(len(library.entries) for library in model.libraries.values())
        self._request_id = f"{name}-{seed}"
        self._requests = 0
        self.stopped = False
        """Set it to end `run` after the call in progress."""
        self.refused: dict[str, int] = {}
        """Number of refused calls by reason."""

    async def run(self) -> None:
        """Make random calls until the Catalog is gone or `stopped` is set."""
        await self._catalog.channel.channel_ready()
        while not self.stopped:
            try:
                await self._step()
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.CANCELLED:
                    return
                reason = from_rpc_error(error, peer=Reason.CATALOG_UNAVAILABLE).reason
                self.refused[reason.value] = self.refused.get(reason.value, 0) + 1
                if reason not in REFUSED:
                    return  # unanswered: the state of its entries is uncertain from now on

    async def _step(self) -> None:
        libraries = [
            library
            for library in self._model.libraries.values()
            if library.exists and library.library_id.startswith(self._name)
        ]
        draw = self._random.random()
        if not libraries or (draw < 0.02 and len(libraries) < 4):
            await self._create()
            return
        library = self._random.choice(libraries)
        if draw < 0.03 and len(libraries) > 1:
            await self._delete_library(library)
        elif draw < 0.65:
            await self._put(library, self._new(library))
        elif draw < 0.8:
            await self._put(library, self._changed(library))
        elif draw < 0.9:
            await self._update(library)
        else:
            await self._delete(library)

    async def _create(self) -> None:
        self._requests += 1
        library = self._model.library(f"{self._request_id}-{self._requests}")
        async with self._unless_refused(library, {}):
            library.begin_existence(True)
            await self._catalog.make_library(library.library_id)
            library.settle_existence(True)

    async def _delete_library(self, library: LibraryModel) -> None:
        async with self._unless_refused(library, {}):
            library.begin_existence(False)
            request = pb.DeleteLibraryRequest(library_id=library.library_id)
            await self._catalog.stub.DeleteLibrary(request)
            library.settle_existence(False)

    async def _put(self, library: LibraryModel, states: Sequence[EntryState]) -> None:
        if not states:
            return
        request = pb.PutEntriesRequest(
            library_id=library.library_id,
            entries=[state.message() for state in states],
            allow_overwrite=[True] * len(states),
            request_ids=[self._next_request() for _ in states],
        )
        async with self._unless_refused(library, {state.image_id: state for state in states}):
            self._model.unanswered_puts.append(request)
            response = await self._catalog.stub.PutEntries(request)
            self._model.unanswered_puts.remove(request)
            for state, result in zip(states, response.results, strict=True):
                assert result.HasField("entry"), result
                assert not result.warnings, result
                library.settle(state.image_id, state)

    async def _update(self, library: LibraryModel) -> None:
        for state in self._some(library, 1):
            changed = state.updated(f"entity {self._random.randrange(1000)}")
            async with self._unless_refused(library, {state.image_id: changed}):
                await self._catalog.update(
                    library.library_id,
                    pb.Entry(image_id=state.image_id, entity_id=changed.entity_id),
                    "entity_id",
                    request_id=self._next_request(),
                )
                library.settle(state.image_id, changed)

    async def _delete(self, library: LibraryModel) -> None:
        states = self._some(library, self._random.randint(1, 4))
        if not states:
            return
        request = pb.DeleteEntriesRequest(
            library_id=library.library_id,
            image_ids=[state.image_id for state in states],
            request_id=self._next_request(),
        )
        async with self._unless_refused(library, {state.image_id: None for state in states}):
            response = await self._catalog.stub.DeleteEntries(request)
            assert response.deleted_count == len(states)
            for state in states:
                library.settle(state.image_id, None)
            self._model.answered.append(Answered(request, response.deleted_count))

    def _new(self, library: LibraryModel) -> list[EntryState]:
        count = self._random.randint(1, MAX_BATCH)
        first, self._count = self._count, self._count + count
        return [
            EntryState(f"{self._request_id} {library.library_id} {first + n}", 1)
            for n in range(count)
        ]

    def _changed(self, library: LibraryModel) -> list[EntryState]:
        return [
            EntryState(state.image_id, state.revision + 1)
            for state in self._some(library, self._random.randint(1, 4))
        ]

    def _some(self, library: LibraryModel, count: int) -> list[EntryState]:
        certain = library.certain()
        return self._random.sample(certain, min(count, len(certain)))

    def _next_request(self) -> str:
        self._requests += 1
        return f"{self._request_id}-{self._requests}"

    @asynccontextmanager
    async def _unless_refused(
        self, library: LibraryModel, states: dict[str, EntryState | None]
    ) -> AsyncIterator[None]:
        """Note the states that a call may leave; forget them if the Catalog refuses the call."""
        before = {image_id: set(library.entries.get(image_id, {None})) for image_id in states}
        existence, puts = set(library.states), list(self._model.unanswered_puts)
        for image_id, state in states.items():
            library.begin(image_id, state)
        try:
            yield
        except grpc.aio.AioRpcError as error:
            if from_rpc_error(error, peer=Reason.CATALOG_UNAVAILABLE).reason in REFUSED:
                library.entries.update(before)
                library.states = existence
                self._model.unanswered_puts[:] = puts
            raise
        self._model.acknowledged_count += max(1, len(states))


@asynccontextmanager
async def working(
    catalog: Catalog, model: Model, *, callers: int, seed: int, finish: bool = False
) -> AsyncIterator[list[Caller]]:
    """Run callers until the block ends; the fault happens inside the block.

    With `finish`, calls in progress are answered. Otherwise they are cancelled, but the Catalog may
    still run them while it lives.
    """
    workers = [Caller(catalog, model, f"caller{n}", seed + n) for n in range(callers)]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        yield workers
    finally:
        for worker, task in zip(workers, tasks, strict=True):
            worker.stopped = True
            if not finish:
                task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
