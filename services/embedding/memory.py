"""Reuse of freed memory by the C library."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3) in glibc."""

MAX_KEPT_BLOCK_BYTES = 32 * 1024 * 1024
"""Size of the largest freed block that is kept for reuse."""
MAX_KEPT_TOP_BYTES = 2 * MAX_KEPT_BLOCK_BYTES
"""Free memory at the top of the heap that is kept for reuse."""


def keep_freed_memory() -> None:
    """Keep the memory of one picture for the next instead of returning it to the system.

    The system clears each page that it hands out again, which took a third of the time of a
    drawing. glibc raises its thresholds to these values by itself after it has freed blocks of
    this size. Other C libraries are left as they are.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, MAX_KEPT_BLOCK_BYTES)
        mallopt(M_TRIM_THRESHOLD, MAX_KEPT_TOP_BYTES)
