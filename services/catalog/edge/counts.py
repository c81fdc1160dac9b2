"""Counts of closed collections, so that a listing of libraries need not open every shard.

Opening a shard takes 70 ms. The file COUNTS in the folder of a shard holds its counts. It is
written when the shard is closed or counted, and removed before the next write, so a killed engine
leaves correct counts or none.
"""

from __future__ import annotations

import json
from pathlib import Path

from imagesearch_services.catalog.disk import sync_folder
from imagesearch_services.catalog.storage import CollectionStats

COUNTS_FILE = "COUNTS"


def read_counts(shard: Path) -> CollectionStats | None:
    """Return the counts of the shard in a folder; None if they are not known."""
    try:
        points, unindexed_vectors = json.loads((shard / COUNTS_FILE).read_text(encoding="ascii"))
    except (OSError, ValueError, TypeError):
        return None
    if not all(isinstance(count, int) and count >= 0 for count in (points, unindexed_vectors)):
        return None
    return CollectionStats(points, unindexed_vectors)


def write_counts(shard: Path, stats: CollectionStats) -> None:
    """Store the counts of a shard that will not change before `forget_counts`."""
    draft = shard / f"{COUNTS_FILE}.new"
    try:
        draft.write_text(
            json.dumps([stats.point_count, stats.unindexed_vector_count]), encoding="ascii"
        )
        draft.rename(shard / COUNTS_FILE)
    except OSError:  # no space: the shard is counted when its counts are needed
        forget_counts(shard)


def forget_counts(shard: Path) -> None:
    """Remove the counts of a shard, durably, before it is written to."""
    try:
        (shard / COUNTS_FILE).unlink()
    except FileNotFoundError:
        return
    sync_folder(shard)
