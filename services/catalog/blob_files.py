"""Reads and writes the files of a blob store in a folder."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from imagesearch_services.catalog.disk import sync_all
from imagesearch_services.catalog.failpoints import failpoint

WRITE_ATTEMPTS = 5
"""Maximum attempts to create a file while a deletion removes its empty folder."""

TEMPORARY_NAME = re.compile(r".+#\d+\Z")
"""Names of unfinished files, chosen by object_store, whose listings omit them."""


def read_files(folder: Path, names: Sequence[str]) -> list[bytes | None]:
    files: list[bytes | None] = []
    for name in names:
        try:
            files.append((folder / name).read_bytes())
        except FileNotFoundError:
            files.append(None)
    return files


def write_files(folder: Path, blobs: Mapping[str, bytes], *, durable: bool) -> None:
    """Write new files, all or none."""
    files = [folder / name for name in blobs]
    try:
        failpoint("blobs.before_write")
        for file, content in zip(files, blobs.values(), strict=True):
            _write_file(file, content)
        failpoint("blobs.after_write")
        if durable:
            # Synced after all are written, so that a commit of the journal serves several files.
            sync_all([*files, *_folders(folder, files)])
        failpoint("blobs.after_sync")
    except BaseException:
        for file in files:
            with contextlib.suppress(OSError):
                file.unlink()
        raise


def replace_files(folder: Path, blobs: Mapping[str, bytes], *, durable: bool) -> None:
    """Write or replace files, each atomically."""
    for name, content in blobs.items():
        draft = f"{name}#{secrets.randbits(32)}"
        write_files(folder, {draft: content}, durable=durable)
        failpoint("blobs.before_rename")
        (folder / draft).rename(folder / name)
        if durable:
            sync_all(_folders(folder, [folder / name]))


def _write_file(file: Path, content: bytes) -> None:
    for attempt in range(1, WRITE_ATTEMPTS + 1):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            file.write_bytes(content)
        except FileNotFoundError:  # a deletion removed the folder, which was empty
            if attempt == WRITE_ATTEMPTS:
                raise
        else:
            return


def _folders(root: Path, files: Iterable[Path]) -> list[Path]:
    """Return the folders of files, from a root on."""
    folders = {parent for file in files for parent in file.parents if parent.is_relative_to(root)}
    return sorted(folders)


def remove_unfinished(folder: Path, before_s: float) -> None:
    # Folders vanish with their last file. os.walk tolerates that, Path.rglob fails.
    for parent, _, names in os.walk(folder):
        for file in (Path(parent, name) for name in names if TEMPORARY_NAME.match(name)):
            with contextlib.suppress(OSError):
                if file.stat().st_mtime < before_s:
                    file.unlink()
