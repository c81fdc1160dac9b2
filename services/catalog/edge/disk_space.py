"""Keeps the engine from writing to a full disk, and deletions possible on one.

The engine writes to sparse, memory-mapped files: where the disk has no block left, SIGBUS kills it,
again after every restart. So each write asks for free space first. Deletions must work at 0 bytes
free, since they are how an operator makes room. They use a reserve, a file whose blocks are
allocated while there is space. It is shortened when a deletion needs blocks, and restored when
space returns.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

RESERVE_FILE = "reserve"
"""Name of the reserve, in the parent of the folder of the collections."""

RESERVE_BYTES = 32 << 20
"""Size of the reserve, in bytes."""

DELETION_BYTES = 8 << 20
"""Free space that a deletion or the opening of a collection needs, in bytes."""

LEAST_FREE_BYTES = 16 << 20
"""Free space that other writes need, whatever the setting is, in bytes."""

AMPLE_BYTES = 1 << 30
"""Free space with which a stopped Catalog needs no reserve, in bytes."""


class DiskSpace:
    """The free space on the disk of a folder."""

    def __init__(self, folder: Path, min_free_bytes: int) -> None:
        """Measure the disk of a folder; `min_free_bytes` is what writes must leave free."""
        self._folder = folder
        self._reserve = folder.parent / RESERVE_FILE
        self._min_free_bytes = min_free_bytes
        self._reserved_bytes = _size(self._reserve)
        self.restore()

    def free_bytes(self) -> int:
        """Return the free space, without the reserve, in bytes."""
        return shutil.disk_usage(self._folder).free

    def require(self, needed_bytes: int = 0) -> None:
        """Raise OSError (ENOSPC) unless the disk has space for a write of this size."""
        if not has_space(self._folder, self._min_free_bytes, needed_bytes):
            raise _disk_full()
        if self._reserved_bytes < RESERVE_BYTES:
            self.restore()

    def require_for_deletion(self) -> None:
        """Raise OSError (ENOSPC) if not even the reserve has space for a deletion."""
        while self.free_bytes() < DELETION_BYTES:
            if not self._reserved_bytes:
                raise _disk_full()
            self._reserved_bytes = max(0, self._reserved_bytes - DELETION_BYTES)
            with self._reserve.open("r+b") as file:
                file.truncate(self._reserved_bytes)
                os.fsync(file.fileno())

    def restore(self) -> None:
        """Allocate the reserve if that leaves enough space for writes."""
        missing = RESERVE_BYTES - self._reserved_bytes
        if missing <= 0 or not has_space(self._folder, self._min_free_bytes, missing):
            return
        try:
            with self._reserve.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError:
            self._reserve.unlink(missing_ok=True)
        self._reserved_bytes = _size(self._reserve)

    def close(self) -> None:
        """Remove the reserve if the disk has ample space for the next start."""
        if self.free_bytes() > AMPLE_BYTES:
            self._reserve.unlink(missing_ok=True)


def has_space(folder: Path, min_free_bytes: int, needed_bytes: int = 0) -> bool:
    """Return whether a write of this size leaves the disk of a folder enough free space."""
    required = max(min_free_bytes, LEAST_FREE_BYTES) + needed_bytes
    return shutil.disk_usage(folder).free >= required


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _disk_full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
