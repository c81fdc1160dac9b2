"""How the C library hands memory back to the system."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc, mallopt(3)."""

LARGEST_KEPT_BYTES = 32 * 1024 * 1024
MOST_KEPT_BYTES = 2 * LARGEST_KEPT_BYTES


def keep_freed_memory() -> None:
    """Let the next picture have what the last one left, instead of the system and back.

    The system clears each page that it gives anew: a third of the time of a drawing. The bounds
    are those that glibc itself comes to, by and by, where it frees pieces so large. With another C
    library nothing happens.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, MOST_KEPT_BYTES)
