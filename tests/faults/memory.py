"""Memory of a process and of the processes that it started (Linux)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path


def memory_mib(pid: int) -> int:
    """Return the memory of a process and its descendants; shared pages count once (PSS)."""
    return sum(map(_proportional_kib, family(pid))) >> 10


def family(pid: int) -> Iterator[int]:
    """Yield a process and its descendants."""
    yield pid
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from family(int(child))


def _proportional_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        found = re.search(r"\nPss:\s+(\d+)", rollup)
        return int(found[1]) if found else 0
    return 0
