"""Makes the C library reuse freed memory instead of returning it to the operating system."""

from __future__ import annotations

import contextlib
import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3) in glibc."""

MAX_KEPT_BLOCK_BYTES = 32 * 1024 * 1024
"""Maximum size of a freed block that is kept for reuse."""
MAX_KEPT_TOP_BYTES = 2 * MAX_KEPT_BLOCK_BYTES
"""Maximum free memory at the top of the heap that is kept for reuse."""
HEAPS_PER_PROCESSOR = 1
"""Maximum heaps that threads share. glibc's default is 8: nearly every thread gets its own, and
each heap keeps the pages around the few blocks that are still in use. After ten minutes of mixed
calls 16 heaps had 1.2 GB."""


def keep_freed_memory() -> None:
    """Raise glibc's malloc thresholds, so that the next picture reuses the memory of the last.

    Otherwise the kernel zeroes each page that it hands out again, which took a third of the time of
    a drawing. glibc adapts its thresholds to these values by itself, but only after it has freed
    blocks of this size. The number of heaps is limited, so that the kept memory is. The call has no
    effect with other C libraries, and must precede the first threads.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, MAX_KEPT_BLOCK_BYTES)
        mallopt(M_ARENA_MAX, HEAPS_PER_PROCESSOR * len(os.sched_getaffinity(0)))
        mallopt(M_TRIM_THRESHOLD, MAX_KEPT_TOP_BYTES)
