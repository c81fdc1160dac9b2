"""Reading ahead of payload into the operating system's page cache.

The engine reads payload page by page, in random order. Without the page cache, these reads take
most of the time of a search that returns many entries.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

READ_BYTES = 1 << 20
"""Size of a read, in bytes. Other threads can run between two reads."""

MAX_MEMORY_SHARE = 0.5
"""Maximum size of payload that is read ahead, as a share of the available memory."""


def read_payload_ahead(folder: Path) -> None:
    """Read a shard's payload into the page cache, if it fits."""
    files = list(folder.glob("segments/*/payload_storage/page_*.dat"))
    buffer = bytearray(READ_BYTES)
    # The shard may be closed and removed at any time.
    with contextlib.suppress(OSError):
        if sum(file.stat().st_size for file in files) > MAX_MEMORY_SHARE * _available_bytes():
            return
        for file in files:
            with file.open("rb", buffering=0) as pages:
                while pages.readinto(buffer):
                    pass


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = next(line for line in lines if line.startswith("MemAvailable"))
    return int(available.split()[1]) * 1024
