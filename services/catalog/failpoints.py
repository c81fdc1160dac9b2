"""Failpoints: named places in the code where a test kills the process.

The variable IMAGESEARCH_FAILPOINT names one of `NAMES`, or "NAME:N" for its Nth hit. The process
that reaches it kills its whole process group (the Catalog, its engine and an index builder) with
SIGKILL, as `kill -9` would. Without the variable, a failpoint does nothing.

`tests/faults` kills a Catalog at every name and checks what it has kept.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "IMAGESEARCH_FAILPOINT"

NAMES = (
    # A write to a collection: engine, write-ahead log, acknowledgment.
    "points.before_write",
    "points.after_write",
    "points.after_flush",
    "commit.before_sync",
    "commit.after_sync",
    # The blobs of a put.
    "blobs.before_write",
    "blobs.after_write",
    "blobs.after_sync",
    "put.after_blobs",
    "put.after_points",
    "put.after_orphans",
    # The creation of a library.
    "library.after_creating",
    "create.after_folder",
    "create.after_shard",
    "create.after_sync",
    "current.after_draft",
    "current.after_rename",
    "create.after_current",
    "library.after_collection",
    # The removal of a library.
    "library.after_deleting",
    "drop.after_rename",
    "drop.after_files",
    "library.after_drop",
    "library.after_pairs",
    "library.after_delete",
    # The deletion of entries, the first use of a tag, the answer of a request.
    "delete.after_points",
    "delete.after_answer",
    "fields.before_record",
    "fields.after_record",
    "fields.after_index",
    "request.before_answer",
    # An index build.
    "index.after_copy",
    "index.after_build",
    "index.after_copy_sync",
    "index.after_catch_up",
    "switch.after_flush",
    "switch.after_current",
    "switch.after_removal",
    # A start.
    "start.after_open",
    "blobs.before_rename",
    "start.after_claim",
    "start.after_cleanup",
)
"""All failpoints, in the order in which a run reaches them."""

_hits: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Kill the process group if the environment names this failpoint."""
    armed = os.environ.get(VARIABLE)
    if armed is None:
        return
    wanted, _, number = armed.partition(":")
    if wanted != name:
        return
    _hits[name] += 1
    if _hits[name] == int(number or 1):
        os.killpg(0, signal.SIGKILL)
