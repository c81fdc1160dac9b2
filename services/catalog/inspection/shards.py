"""Reads whole shards; runs in a child process, because damaged files can make a call endless."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import qdrant_edge as q

from imagesearch_services.catalog.edge.unreadable import read_points
from imagesearch_services.catalog.inspection.entries import check_entries
from imagesearch_services.catalog.inspection.report import Library
from imagesearch_services.catalog.model import Library as LibraryRecord
from imagesearch_services.catalog.storage import CollectionDamagedError, Record

SCROLL_POINTS = 500
"""Points read at once."""

READ_S = 60.0
"""Processor time for which a shard may be read, in seconds."""

READ_S_PER_GIB = 600.0
"""Additional processor time per GiB of a shard, in seconds: ten times what a check needs."""


def read_metadata(path: Path, shown: Path) -> list[Record]:
    """Return all points of the shard of the metadata."""
    with contextlib.closing(open_shard(path, shown)) as shard:
        return list(_points(shard, vectors=False))


def read_library(
    path: Path, shown: Path, record: LibraryRecord, thumbnails: Path | None, found: Library
) -> Library:
    """Return `found` with what is damaged in a library's shard."""
    with contextlib.closing(open_shard(path, shown)) as shard:
        check_entries(record, _points(shard, vectors=True), thumbnails, found)
    return found


def open_shard(path: Path, shown: Path) -> q.EdgeShard:
    """Open a shard; `shown` is its path in errors.

    Raises:
        CollectionDamagedError: its files can't be read.
    """
    try:
        return q.EdgeShard.load(str(path))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the engine is a BaseException
        text = str(error).replace(str(path), str(shown)).partition("\n")[0]
        raise CollectionDamagedError(f"{shown} can't be opened: {text}") from error


def _points(shard: q.EdgeShard, *, vectors: bool) -> Iterator[Record]:
    offset: q.PointId | None = None
    while True:
        page, offset = shard.scroll(
            q.ScrollRequest(
                offset=offset, limit=SCROLL_POINTS, with_payload=False, with_vector=False
            )
        )
        ids = [record.id for record in page]
        yield from read_points(shard, ids, with_payload=True, vectors=vectors) if ids else ()
        if offset is None:
            return


def count_points(path: Path) -> int:
    """Return the number of points of a shard, which is opened in its place."""
    with contextlib.closing(open_shard(path, path)) as shard:
        return shard.info().points_count
