"""The files of a data folder, and what can be said about them without opening a shard.

    catalog/installation.json       identity of the installation, and the format version
    catalog/libraries/lock          held by the engine process
    catalog/libraries/NAME/         a collection: CURRENT, library.json, numbered generations
    catalog/quarantine/NAME-TIME/   a collection that no record names, set aside

A folder is deleted in two steps: it is renamed to `NAME.removed`, then its files are removed. So
a folder with a number as its name is a whole generation, whatever a crash interrupted.
"""

from __future__ import annotations

import errno
import re
import shutil
import time
from pathlib import Path
from typing import Any

from imagesearch_services.catalog.disk import sync_folder
from imagesearch_services.catalog.edge.documents import DamagedDocumentError, read_document
from imagesearch_services.catalog.edge.files import (
    CURRENT_FILE,
    read_generation,
    write_generation,
)
from imagesearch_services.catalog.failpoints import failpoint
from imagesearch_services.catalog.storage import CollectionDamagedError, NewerFormatError

IDENTITY_FILE = "installation.json"
RECORD_FILE = "library.json"
"""Name of the copy of a library's record, in the folder of its collection."""
QUARANTINE = "quarantine"
REMOVED_SUFFIX = ".removed"
CONFIG_FILE = "edge_config.json"
"""Name of the configuration of a shard, which every whole generation has."""

UID = re.compile(r"[0-9a-f]{32}\Z")


def identity_path(folder: Path) -> Path:
    """Return the path of the identity of the installation with this folder of collections."""
    return folder.parent / IDENTITY_FILE


def quarantine_path(folder: Path) -> Path:
    return folder.parent / QUARANTINE


def generations(collection: Path) -> list[int]:
    """Return the generations of a collection that have a shard's configuration, in order."""
    return sorted(
        int(path.name)
        for path in collection.iterdir()
        if path.name.isascii() and path.name.isdigit() and (path / CONFIG_FILE).is_file()
    )


def unused_generations(collection: Path, current: int) -> list[Path]:
    """Return the folders of all generations but the one in use."""
    return [
        path
        for path in collection.iterdir()
        if path.name.isdigit() and path.is_dir() and int(path.name) != current
    ]


def current_generation(collection: Path) -> int:
    """Return the generation in use.

    Raises:
        CollectionDamagedError: CURRENT is lost or unreadable, or names no generation.
    """
    try:
        current = read_generation(collection)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise
        raise CollectionDamagedError(
            f"{collection}: the file {CURRENT_FILE} is missing or unreadable"
        ) from error
    if current not in generations(collection):
        raise CollectionDamagedError(
            f"{collection}: generation {current}, which {CURRENT_FILE} names, is missing"
        )
    return current


def inferred_generation(collection: Path) -> int | None:
    """Return the generation that must be the one in use where CURRENT is lost; None: unknown."""
    found = generations(collection)
    return found[0] if len(found) == 1 else None


def restore_current(collection: Path) -> int:
    """Return the generation in use; write CURRENT again if it is lost and can be inferred.

    Raises:
        CollectionDamagedError: no generation is left.
    """
    try:
        return current_generation(collection)
    except CollectionDamagedError:
        inferred = inferred_generation(collection) if collection.is_dir() else None
        if inferred is None:
            raise
        write_generation(collection, inferred)
        return inferred


def read_record(collection: Path) -> dict[str, Any] | None:
    """Return the copy of a library's record; None if there is none that can be trusted."""
    try:
        return read_document(collection / RECORD_FILE)
    except (DamagedDocumentError, NewerFormatError):
        return None


def is_collection(path: Path) -> bool:
    """Return whether a folder is a collection, also one that has lost files."""
    if not path.is_dir() or path.name.endswith(REMOVED_SUFFIX):
        return False
    return UID.match(path.name) is not None or (path / CURRENT_FILE).exists()


def remove_folder(path: Path) -> None:
    """Delete a folder in two steps, so that a crash never leaves a part of it under its name."""
    doomed = path if path.name.endswith(REMOVED_SUFFIX) else _free_name(path, REMOVED_SUFFIX)
    if doomed != path:
        path.rename(doomed)
        sync_folder(path.parent)
        failpoint("drop.after_rename")
    shutil.rmtree(doomed, ignore_errors=True)


def set_aside(folder: Path, name: str) -> str:
    """Move a collection to the quarantine; return its new path, or "" if it has to stay."""
    quarantine = quarantine_path(folder)
    quarantine.mkdir(exist_ok=True)
    stamp = time.strftime("-%Y%m%dT%H%M%SZ", time.gmtime())
    target = _free_name(quarantine / name, stamp)
    try:
        (folder / name).rename(target)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EBUSY, errno.EACCES, errno.EPERM}:
            raise
        return ""
    sync_folder(quarantine)
    sync_folder(folder)
    return str(target)


def bring_back(folder: Path, name: str) -> bool:
    """Move the collection that was set aside last back to its place."""
    found = quarantined(folder, name)
    if not found or (folder / name).exists():
        return False
    found[-1].rename(folder / name)
    sync_folder(folder)
    sync_folder(quarantine_path(folder))
    return True


def quarantined(folder: Path, name: str = "") -> list[Path]:
    """Return what is in the quarantine, of one collection or of all, oldest first."""
    quarantine = quarantine_path(folder)
    found = quarantine.glob(f"{name}-*" if name else "*") if quarantine.is_dir() else ()
    return sorted(path for path in found if path.is_dir())


def _free_name(path: Path, suffix: str) -> Path:
    candidate = path.with_name(path.name + suffix)
    number = 1
    while candidate.exists():
        number += 1
        ending = REMOVED_SUFFIX if suffix.endswith(REMOVED_SUFFIX) else ""
        stem = suffix.removesuffix(ending)
        candidate = path.with_name(f"{path.name}{stem}-{number}{ending}")
    return candidate
