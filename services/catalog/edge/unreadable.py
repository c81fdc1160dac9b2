"""Points whose payload the engine can't read, because bytes of it changed on the disk.

The engine fails every call that reads such a payload: a page of a listing, a filter, even the
deletion of the point, after which it accepts no more writes to the shard. So an unreadable payload
is replaced by a mark when a call meets it, and the call is repeated. Nothing more is lost by that:
no call of the engine returns a payload that it can't decode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import qdrant_edge as q

from imagesearch_services.catalog.edge.conversion import read_record, read_uid
from imagesearch_services.catalog.storage import UNREADABLE_KEY, Record

Result = TypeVar("Result")

SCROLL_POINTS = 1000
"""Points whose payloads are read at once."""

SIGNS = ("Failed to decode value", "Payload storage is corrupted", "Failed to decompress")
"""Parts of the engine's errors about a payload that it can't read."""


def read_points(
    shard: q.EdgeShard, ids: Sequence[q.PointId], with_payload: Any, *, vectors: bool
) -> list[Record]:
    """Read the points that exist; mark those whose payload is unreadable.

    The payload of a marked point is `{UNREADABLE_KEY: error}`.
    """
    try:
        return [read_record(record) for record in shard.retrieve(list(ids), with_payload, vectors)]
    except BaseException as error:
        if not _is_unreadable(error):
            raise
        if len(ids) == 1:
            mark = {UNREADABLE_KEY: str(error)[:200]}
            shard.update(q.UpdateOperation.overwrite_payload([ids[0]], mark))
            return [Record(read_uid(ids[0]), mark, {})]
    half = len(ids) // 2
    return [
        *read_points(shard, ids[:half], with_payload, vectors=vectors),
        *read_points(shard, ids[half:], with_payload, vectors=vectors),
    ]


def with_readable_payloads(shard: q.EdgeShard, run: Callable[[], Result]) -> Result:
    """Run a read; if it meets unreadable payloads, mark all of them and repeat it."""
    try:
        return run()
    except BaseException as error:
        if not _is_unreadable(error):
            raise
    mark_unreadable(shard)
    return run()


def mark_unreadable(shard: q.EdgeShard) -> None:
    """Mark all points of a shard whose payloads are unreadable."""
    offset: q.PointId | None = None
    while True:
        page, offset = shard.scroll(
            q.ScrollRequest(
                offset=offset, limit=SCROLL_POINTS, with_payload=False, with_vector=False
            )
        )
        if page:
            read_points(shard, [record.id for record in page], with_payload=True, vectors=False)
        if offset is None:
            return


def _is_unreadable(error: BaseException) -> bool:
    text = str(error)
    return any(sign in text for sign in SIGNS)
