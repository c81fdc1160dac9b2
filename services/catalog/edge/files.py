"""File operations of the embedded engine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

BLOCK_BYTES = 512
"""Unit of `st_blocks`, in bytes (stat(2))."""


def sync_folder(folder: Path) -> None:
    """Make the creation and renaming of files in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_bytes(folder: Path) -> int:
    """Return the disk space that a folder's files occupy, in bytes; holes occupy none."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(file.stat().st_blocks * BLOCK_BYTES for file in files)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder; sparse files stay sparse."""
    shutil.copytree(source, target, copy_function=_copy_sparse)


def _copy_sparse(source: str, target: str) -> None:
    with open(source, "rb") as reader, open(target, "wb") as writer:  # noqa: PTH123  # copytree passes strings
        size = os.fstat(reader.fileno()).st_size
        os.truncate(writer.fileno(), size)
        end = 0
        while end < size:
            try:
                start = os.lseek(reader.fileno(), end, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole follows
                break
            end = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            os.lseek(reader.fileno(), start, os.SEEK_SET)
            os.lseek(writer.fileno(), start, os.SEEK_SET)
            remaining = end - start
            while remaining:
                remaining -= os.sendfile(writer.fileno(), reader.fileno(), None, remaining)
