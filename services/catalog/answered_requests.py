"""Answers of mutations, stored under their request ids so that a retry gets the first answer."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from imagesearch_services.catalog.failpoints import failpoint
from imagesearch_services.catalog.filters import AllOf, Match, Range
from imagesearch_services.catalog.integrity import is_intact, seal
from imagesearch_services.catalog.model import ENTRY_NAMESPACE
from imagesearch_services.catalog.payloads import METADATA
from imagesearch_services.catalog.storage import Fields, Payload, Point, Storage
from imagesearch_services.catalog.tasks import KeyedLocks
from imagesearch_services.common.errors import Reason, ServiceError, field_error
from imagesearch_services.common.logs import logger

KEPT_S = 2 * 3600.0
"""Lifetime of a stored answer, in seconds; the contract promises an hour."""

MAX_REQUEST_ID_BYTES = 128
"""Maximum length of a request id, in bytes of UTF-8."""

PRUNE_INTERVAL_S = 600.0
PRUNE_POINTS = 1000
"""Points deleted per step."""


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Identity of a call."""

    request_id: str
    """Id that the caller chose; empty: the answer is not stored."""
    fingerprint: str
    """Digest of the method and the whole request."""


class AnsweredRequests:
    """The stored answers, in the metadata collection."""

    def __init__(self, storage: Storage, *, clock: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._clock = clock
        self._locks = KeyedLocks()
        self._pruned_at = clock()

    @contextlib.asynccontextmanager
    async def attempt(self, key: RequestKey) -> AsyncIterator[Payload | None]:
        """Lock the request id during a call; yield the stored answer, or None.

        Raises:
            ServiceError: REQUEST_ID_REUSED if the id was used for a different call.
        """
        if not key.request_id:
            yield None
            return
        check_request_id("request_id", key.request_id)
        async with self._locks.hold(key.request_id):
            yield await self._recall(key)

    def answer_points(self, key: RequestKey, answer: Payload) -> list[Point]:
        """Return the points that store an answer, to be written together with the mutation."""
        if not key.request_id:
            return []
        payload = {
            "kind": "request",
            "fingerprint": key.fingerprint,
            "remembered_at": self._clock(),
            "answer": answer,
        }
        return [Point(_uid(key.request_id), {}, seal(payload))]

    async def remember(self, key: RequestKey, answer: Payload) -> None:
        """Store an answer after its mutation."""
        points = self.answer_points(key, answer)
        failpoint("request.before_answer")
        if points:
            await self._storage.upsert(METADATA, points)
        await self.prune()

    async def prune(self) -> None:
        """Delete expired answers, at most once per `PRUNE_INTERVAL_S`."""
        now = self._clock()
        if now - self._pruned_at < PRUNE_INTERVAL_S:
            return
        self._pruned_at = now
        expired = AllOf((Match("kind", ("request",)), Range("remembered_at", lt=now - KEPT_S)))
        with contextlib.suppress(ServiceError):  # the next pruning deletes the remaining answers
            while found := await self._storage.scroll(
                METADATA, expired, None, PRUNE_POINTS, Fields.NONE
            ):
                await self._storage.delete(METADATA, [record.uid for record in found])

    async def _recall(self, key: RequestKey) -> Payload | None:
        found = await self._storage.retrieve(METADATA, [_uid(key.request_id)], Fields.ALL)
        if not found:
            return None
        payload = found[0].payload
        if not is_intact(payload):
            logger().error("request.answer_damaged", stored_request_id=key.request_id)
            return None
        if payload["remembered_at"] < self._clock() - KEPT_S:
            return None
        if payload["fingerprint"] != key.fingerprint:
            raise ServiceError(
                Reason.REQUEST_ID_REUSED,
                "the request id was used before for a different call; choose a new one",
                metadata={"request_id": key.request_id},
            )
        answer: Payload = payload["answer"]
        return answer


def check_request_id(field: str, request_id: str) -> None:
    """Raise FIELD_INVALID if a request id is too long."""
    size = len(request_id.encode())
    if size > MAX_REQUEST_ID_BYTES:
        raise field_error(field, f"must have at most {MAX_REQUEST_ID_BYTES} bytes, not {size}")


def _uid(request_id: str) -> bytes:
    return uuid.uuid5(ENTRY_NAMESPACE, f"request:{request_id}").bytes
