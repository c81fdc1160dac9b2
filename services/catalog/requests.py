"""Remembered requests: a mutation that is repeated gives its first answer again."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from imagesearch_services.catalog.checks import check_request_id
from imagesearch_services.catalog.filters import AllOf, Match, Range
from imagesearch_services.catalog.model import ENTRY_NAMESPACE
from imagesearch_services.catalog.storage import Fields, Payload, Point, Storage
from imagesearch_services.catalog.tasks import KeyedLocks
from imagesearch_services.common.errors import Reason, ServiceError

METADATA = "_meta"
"""Collection of libraries, remembered requests and rejected pairs."""

KEPT_S = 2 * 3600.0
"""How long a request is remembered; an hour is promised."""

PRUNE_EVERY_S = 600.0
PRUNE_POINTS = 1000


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What tells one call from another."""

    request_id: str
    """The caller's; empty: the call is not remembered."""
    fingerprint: str
    """Of the method and the whole request."""


class Requests:
    """The memory of mutations, in the metadata collection."""

    def __init__(self, storage: Storage, *, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._clock = clock
        self._locks = KeyedLocks()
        self._pruned_at = clock()

    @contextlib.asynccontextmanager
    async def attempt(self, key: RequestKey) -> AsyncIterator[Payload | None]:
        """Hold the request id for the moment of a call; yield its first answer if it had one.

        Raises:
            ServiceError: REQUEST_ID_REUSED where the id stands for another call.
        """
        if not key.request_id:
            yield None
            return
        check_request_id("request_id", key.request_id)
        async with self._locks.hold(key.request_id):
            yield await self._recall(key)

    def note(self, key: RequestKey, answer: Payload) -> list[Point]:
        """Return what to write, together with the mutation itself where that is possible."""
        if not key.request_id:
            return []
        payload = {
            "kind": "request",
            "fingerprint": key.fingerprint,
            "remembered_at": self._clock(),
            "answer": answer,
        }
        return [Point(_uid(key.request_id), {}, payload)]

    async def remember(self, key: RequestKey, answer: Payload) -> None:
        """Write the answer down on its own."""
        points = self.note(key, answer)
        if points:
            await self._storage.upsert(METADATA, points)
        await self.prune()

    async def prune(self) -> None:
        """Forget, now and then, what is older than promised."""
        now = self._clock()
        if now - self._pruned_at < PRUNE_EVERY_S:
            return
        self._pruned_at = now
        old = AllOf((Match("kind", ("request",)), Range("remembered_at", lt=now - KEPT_S)))
        with contextlib.suppress(ServiceError):  # the next time will do
            while found := await self._storage.scroll(
                METADATA, old, None, PRUNE_POINTS, Fields.NONE
            ):
                await self._storage.delete(METADATA, [record.uid for record in found])

    async def _recall(self, key: RequestKey) -> Payload | None:
        found = await self._storage.retrieve(METADATA, [_uid(key.request_id)], Fields.ALL)
        if not found:
            return None
        payload = found[0].payload
        if payload["remembered_at"] < self._clock() - KEPT_S:
            return None
        if payload["fingerprint"] != key.fingerprint:
            raise ServiceError(
                Reason.REQUEST_ID_REUSED,
                "the request id was used before for a different call",
                metadata={"request_id": key.request_id},
            )
        answer: Payload = payload["answer"]
        return answer


def _uid(request_id: str) -> bytes:
    return uuid.uuid5(ENTRY_NAMESPACE, f"request:{request_id}").bytes
