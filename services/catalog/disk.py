"""Makes files and folder entries durable, so that they survive a power loss.

`fsync` of a file makes its content durable, including pages that another process wrote through a
memory mapping. It does not make the file's name durable: that takes an `fsync` of its folder
(fsync(2)).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

THREADS = 8
"""Maximum files that are synced at the same time."""


def sync_file(file: Path) -> None:
    """Make the content of a file durable."""
    _sync(file)


def sync_folder(folder: Path) -> None:
    """Make the creation, renaming and removal of files in a folder durable."""
    _sync(folder)


def sync_all(paths: Collection[Path]) -> None:
    """Make files and folders durable, in any order, several at a time.

    Concurrent syncs share commits of the file system's journal, and wait together where the machine
    is busy: 66 syncs one after the other wait 66 times for their turn.
    """
    with ThreadPoolExecutor(min(THREADS, max(1, len(paths)))) as threads:
        for _ in threads.map(_sync, paths):
            pass  # raises the first error


def sync_tree(folder: Path) -> None:
    """Make all files and folders below a folder durable, and the folder's own entries."""
    for parent, _, names in os.walk(folder, topdown=False, onerror=_raise):
        for name in names:
            _sync(Path(parent, name))
        _sync(Path(parent))


def sync_folders(folder: Path) -> None:
    """Make the names of all files and folders below a folder durable, but not their content."""
    for parent, _, _ in os.walk(folder, topdown=False, onerror=_raise):
        _sync(Path(parent))


def create_folder(folder: Path, *, durable: bool = True) -> None:
    """Create a folder and its missing parents."""
    missing = _missing(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if durable:
        for path in missing:
            sync_folder(path.parent)


def write_atomically(file: Path, content: bytes) -> None:
    """Replace a file durably: a crash leaves the old content or the new one."""
    draft = file.with_name(f"{file.name}.new")
    with draft.open("wb") as output:
        output.write(content)
        output.flush()
        os.fsync(output.fileno())
    draft.rename(file)
    sync_folder(file.parent)


def _missing(folder: Path) -> Iterable[Path]:
    """Return the folders of a path that do not exist, the deepest first."""
    return [path for path in (folder, *folder.absolute().parents) if not path.exists()]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error
