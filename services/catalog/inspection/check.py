"""Checks a stopped data folder of the embedded engine without changing a byte of it.

Opening a shard replays its write-ahead log, which changes files. So each shard is copied to a
scratch folder, one at a time, and the copy is opened in a child process: damaged files can make the
engine crash or compute without an end.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from imagesearch_services.catalog.edge import layout
from imagesearch_services.catalog.edge.data_folder import LOCK_FILE
from imagesearch_services.catalog.edge.documents import (
    FORMAT,
    DamagedDocumentError,
    read_document,
)
from imagesearch_services.catalog.edge.files import copy_folder, disk_bytes
from imagesearch_services.catalog.inspection import shards
from imagesearch_services.catalog.inspection.bounded import BoundedCalls, CallLostError
from imagesearch_services.catalog.inspection.report import Library, Report, State
from imagesearch_services.catalog.integrity import is_intact
from imagesearch_services.catalog.library.records import DELETED_KIND, READY
from imagesearch_services.catalog.library.recovery import library_of
from imagesearch_services.catalog.model import Library as LibraryRecord
from imagesearch_services.catalog.payloads import METADATA
from imagesearch_services.catalog.storage import (
    CollectionDamagedError,
    FolderLockedError,
    Payload,
    Record,
)

Result = TypeVar("Result")


class Check:
    """A check of one data folder."""

    def __init__(self, folder: Path, scratch: Path | None, thumbnails: Path | None) -> None:
        """Prepare a check.

        Args:
            folder: folder of the collections, "DATA_DIR/catalog/libraries".
            scratch: folder for copies of the shards; None: entries are not read.
            thumbnails: folder of the thumbnails; None: they are not checked.
        """
        self._folder = folder
        self._scratch = scratch
        self._thumbnails = thumbnails
        self._calls = BoundedCalls()
        self._report = Report(folder=str(folder), format_version=FORMAT)

    def run(self) -> Report:
        """Check everything.

        Raises:
            FolderLockedError: a Catalog uses the folder.
            NewerFormatError: a later version wrote the folder.
        """
        with _shared_lock(self._folder), contextlib.closing(self._calls):
            self._check_identity()
            records, deleted = self._metadata()
            self._check_collections(records, deleted)
            self._list_quarantine({each.library for each in self._report.libraries})
        return self._report

    def _check_identity(self) -> None:
        path = layout.identity_path(self._folder)
        repair = "the next start, or `repair`, writes it again"
        try:
            content = read_document(path)
        except DamagedDocumentError as error:
            self._report.problems.append(str(error))
            self._report.repairs.append(repair)
            return
        if content is None:
            self._report.problems.append(f"{path} is missing (data of an earlier version, or lost)")
            self._report.repairs.append(repair)
        else:
            self._report.installation_id = str(content.get("installation_id", ""))

    def _metadata(self) -> tuple[dict[str, tuple[LibraryRecord, str]], set[str]]:
        """Return the libraries that the metadata names by uid, and the uids of deleted ones."""
        path = self._folder / METADATA
        problem, points = "", list[Record]()
        try:
            generation, problem = _generation(path)
            points = self._read(path / str(generation), shards.read_metadata)
        except CollectionDamagedError as error:
            problem = str(error)
        if problem:
            self._report.problems.append(f"metadata: {problem}")
            self._report.repairs.append("rebuild the metadata from the copies in the collections")
            if not points:
                self._report.lost.append(
                    "metadata: rejected pairs, records of deletions, answers by request_id"
                )
        damaged = [point for point in points if not is_intact(point.payload)]
        if damaged:
            self._report.problems.append(f"metadata: {len(damaged)} damaged points")
            self._report.lost.append("metadata: what the damaged points held, unless copies exist")
        return _libraries(point.payload for point in points if is_intact(point.payload))

    def _check_collections(
        self, records: dict[str, tuple[LibraryRecord, str]], deleted: set[str]
    ) -> None:
        paths = {
            path.name: path
            for path in (self._folder.iterdir() if self._folder.is_dir() else ())
            if path.name != METADATA and layout.is_collection(path)
        }
        for uid, (record, state) in records.items():
            path = paths.pop(uid, None)
            if state != READY and (path is None or layout.read_record(path) is None):
                continue  # a start removes what a crash left
            found = Library(library=record.library_id, uid=uid)
            self._report.libraries.append(found)
            if path is not None:
                self._check_collection(path, record, found)
            elif layout.quarantined(self._folder, uid):
                found.add(
                    State.REPAIRABLE,
                    "the collection is in the quarantine",
                    repair="bring the collection back",
                )
            else:
                found.add(
                    State.DAMAGED, "the collection is missing", lost="all entries of the library"
                )
        names = {record.library_id for record, _ in records.values()}
        for uid, path in paths.items():
            if uid not in deleted:
                self._check_unnamed(path, names)

    def _check_unnamed(self, path: Path, names: set[str]) -> None:
        content = layout.read_record(path)
        record = None if content is None else library_of(content, path.name)
        found = Library(library="" if record is None else record.library_id, uid=path.name)
        self._report.libraries.append(found)
        if record is None or record.library_id in names:
            found.add(
                State.UNKNOWN,
                "the metadata does not name the collection"
                + ("" if record is None else ", and another library has its name"),
                repair="set the collection aside, in the quarantine",
            )
            return
        names.add(record.library_id)
        found.add(
            State.REPAIRABLE,
            "the metadata does not name the library",
            repair="restore the library's record from its copy",
        )
        self._check_collection(path, record, found)

    def _check_collection(self, path: Path, record: LibraryRecord, found: Library) -> None:
        try:
            generation, problem = _generation(path)
            if problem:
                found.add(State.REPAIRABLE, problem, repair=f"use generation {generation}")
            if self._scratch is not None:
                shard = path / str(generation)
                found.take(self._read(shard, shards.read_library, record, self._thumbnails, found))
        except CollectionDamagedError as error:
            repair = ""
            if len(layout.generations(path)) > 1:
                repair = "use the generation that opens and has the most entries"
            found.add(
                State.REPAIRABLE if repair else State.DAMAGED,
                str(error),
                repair=repair,
                lost="" if repair else "all entries of the library, without a backup",
            )
        except OSError as error:
            found.add(State.NOT_CHECKED, f"the entries were not read: {error}")

    def _list_quarantine(self, names: set[str]) -> None:
        for path in layout.quarantined(self._folder):
            self._report.quarantined.append(str(path))
            content = layout.read_record(path)
            uid = str(content.get("uid")) if content else ""
            record = library_of(content, uid) if content else None
            if record is not None and record.library_id not in names:
                found = Library(library=record.library_id, uid=uid)
                found.add(
                    State.REPAIRABLE,
                    "the library is in the quarantine",
                    repair="bring the collection back",
                )
                self._report.libraries.append(found)

    def _read(self, shard: Path, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call `function(copy, shard, *arguments)` with a copy of a shard, in a child process.

        Raises:
            CollectionDamagedError: its files can't be read.
            OSError: there is no space for the copy.
        """
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="imagesearch-check-") as scratch:
            needed, free = disk_bytes(shard), shutil.disk_usage(scratch).free
            if needed > free:
                raise OSError(
                    f"a copy needs {needed:,} bytes and {scratch} has {free:,}; see --scratch"
                )
            copy = Path(scratch) / "shard"
            copy_folder(shard, copy)
            limit_s = shards.READ_S + shards.READ_S_PER_GIB * needed / (1 << 30)
            try:
                return self._calls.call(limit_s, function, copy, shard, *arguments)
            except CallLostError as error:
                raise CollectionDamagedError(f"{shard}: {error}") from error


def _generation(collection: Path) -> tuple[int, str]:
    """Return the generation in use, and why it had to be inferred, if so."""
    try:
        return layout.current_generation(collection), ""
    except CollectionDamagedError as error:
        inferred = layout.inferred_generation(collection) if collection.is_dir() else None
        if inferred is None:
            raise
        return inferred, str(error)


def _libraries(
    payloads: Iterator[Payload],
) -> tuple[dict[str, tuple[LibraryRecord, str]], set[str]]:
    libraries: dict[str, tuple[LibraryRecord, str]] = {}
    deleted: set[str] = set()
    for payload in payloads:
        if payload.get("kind") == "library":
            record = library_of(payload, str(payload.get("uid")))
            if record is not None:
                libraries[record.uid] = (record, str(payload.get("state")))
        elif payload.get("kind") == DELETED_KIND:
            deleted.add(str(payload.get("library_uid")))
    return libraries, deleted


@contextlib.contextmanager
def _shared_lock(folder: Path) -> Iterator[None]:
    """Exclude a Catalog during the check, without changing a file."""
    path = folder / LOCK_FILE
    if not path.exists():
        yield
        return
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderLockedError(f"{folder} is in use: stop the Catalog first") from None
        yield
