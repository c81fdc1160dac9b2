"""Removes the shared memory of Triton servers that were killed.

Triton's Python backend keeps its regions in /dev/shm. A server that ends by itself removes them;
the regions of a killed server would stay until the machine restarts.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # Triton uses this folder
PREFIX = "imagesearch_triton_"
"""Start of the names of the regions, which the port of the server and random letters follow."""

_OWNER = re.compile(rb"imagesearch_triton_(\d+)_")


def remove_stale_regions(folder: Path = SHARED_MEMORY, processes: Path = Path("/proc")) -> int:
    """Remove the regions of servers of which no process is left. Returns their number.

    The command lines of the server and of its children contain the names of their regions.
    """
    regions = list(folder.glob(f"{PREFIX}*"))  # before the processes: a new server has both
    ports = _ports_in_use(processes)
    removed = 0
    for region in regions:
        owner = _OWNER.match(region.name.encode())
        if owner is not None and owner.group(1) not in ports:
            region.unlink(missing_ok=True)
            removed += 1
    return removed


def _ports_in_use(processes: Path) -> set[bytes]:
    ports: set[bytes] = set()
    for command_line in processes.glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            ports.update(_OWNER.findall(command_line.read_bytes()))
    return ports
