"""File operations of the embedded engine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from imagesearch_services.catalog.disk import sync_folder
from imagesearch_services.catalog.failpoints import failpoint

CURRENT_FILE = "CURRENT"
"""Name of the file that holds the number of a collection's generation in use."""

BLOCK_BYTES = 512
"""Unit of `st_blocks`, in bytes (stat(2))."""


def read_generation(collection: Path) -> int:
    """Return the generation in use of the collection in a folder."""
    return int((collection / CURRENT_FILE).read_text(encoding="ascii"))


def write_generation(collection: Path, generation: int) -> None:
    """Set the generation in use, atomically and durably.

    Raises:
        OSError: CURRENT names the old generation, or names the new one but perhaps not after a
            power loss.
    """
    draft = collection / f"{CURRENT_FILE}.new"
    with draft.open("w", encoding="ascii") as file:
        file.write(str(generation))
        file.flush()
        os.fsync(file.fileno())
    failpoint("current.after_draft")
    draft.rename(collection / CURRENT_FILE)
    failpoint("current.after_rename")
    sync_folder(collection)


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
