"""Repairs a stopped data folder. Nothing is deleted but damaged entries, and those only on request.

First the files are put in order: generations in use, collections in the quarantine. Then the start
of a Catalog restores the metadata (`library/recovery`).
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from imagesearch_services.catalog.answered_requests import AnsweredRequests
from imagesearch_services.catalog.backends import open_blob_store, open_storage
from imagesearch_services.catalog.edge import layout
from imagesearch_services.catalog.edge.files import write_generation
from imagesearch_services.catalog.entry.reading import find_damage
from imagesearch_services.catalog.inspection.bounded import BoundedCalls, CallLostError
from imagesearch_services.catalog.inspection.shards import READ_S, count_points
from imagesearch_services.catalog.library.libraries import Libraries
from imagesearch_services.catalog.library.records import open_metadata
from imagesearch_services.catalog.library.recovery import library_of
from imagesearch_services.catalog.model import Library
from imagesearch_services.catalog.paging import PageTokens
from imagesearch_services.catalog.payloads import METADATA
from imagesearch_services.catalog.settings import Settings
from imagesearch_services.catalog.storage import (
    CollectionDamagedError,
    Fields,
    Storage,
)
from imagesearch_services.catalog.tasks import ShieldedTasks
from imagesearch_services.catalog.thumbnails.installation import Installation
from imagesearch_services.catalog.token_key import TokenKey

SCROLL_POINTS = 500


async def repair(settings: Settings, *, drop_damaged_entries: bool) -> list[str]:
    """Repair a data folder; return what was done.

    Raises:
        FolderLockedError: a Catalog uses the folder.
        NewerFormatError: a later version wrote the folder.
        ForeignStoreError: the blob store belongs to another installation.
        ServiceError: the engine or the blob store does not answer.
    """
    folder = settings.data_dir / "catalog" / "libraries"
    done = _settle_files(folder)
    storage = open_storage(settings)
    await storage.start()
    try:
        await open_metadata(storage)
        await Installation(storage, open_blob_store(settings)).claim()
        tokens = PageTokens(TokenKey(storage).get)
        libraries = Libraries(storage, AnsweredRequests(storage), ShieldedTasks(), tokens=tokens)
        await libraries.start()
        if drop_damaged_entries:
            for library in await libraries.all():
                done += await _drop_damaged_entries(storage, library)
    finally:
        await storage.close()
    return done


def _settle_files(folder: Path) -> list[str]:
    """Choose lost generations and bring collections back from the quarantine."""
    done: list[str] = []
    for path in layout.quarantined(folder):
        content = layout.read_record(path)
        uid = str(content.get("uid")) if content else ""
        if content and library_of(content, uid) and not _is_served(folder, content):
            path.rename(folder / uid)
            done.append(f"brought {uid} back from {path}")
    for path in folder.iterdir() if folder.is_dir() else ():
        if layout.is_collection(path) and _needs_generation(path):
            done += _choose_generation(folder, path)
    return done


def _is_served(folder: Path, record: dict[str, object]) -> bool:
    """Return whether a collection has the uid or the library id of a record."""
    records = [
        layout.read_record(path)
        for path in folder.iterdir()
        if path.name != METADATA and layout.is_collection(path)
    ]
    served = {other.get("library_id") for other in records if other}
    return (folder / str(record["uid"])).exists() or record["library_id"] in served


def _needs_generation(path: Path) -> bool:
    try:
        layout.restore_current(path)
    except CollectionDamagedError:
        return len(layout.generations(path)) > 1
    return False


def _choose_generation(folder: Path, path: Path) -> list[str]:
    """Use the generation that opens and has the most points; set the others aside."""
    counts: dict[int, int] = {}
    with contextlib.closing(BoundedCalls()) as calls:
        for generation in layout.generations(path):
            with contextlib.suppress(CollectionDamagedError, CallLostError):
                counts[generation] = calls.call(READ_S, count_points, path / str(generation))
    if not counts:
        return []
    chosen = max(counts, key=lambda generation: (counts[generation], generation))
    write_generation(path, chosen)
    done = [f"{path.name}: uses generation {chosen} with {counts[chosen]:,} points"]
    for other in layout.generations(path):
        if other != chosen:
            target = layout.quarantine_path(folder) / f"{path.name}-generation-{other}"
            target.parent.mkdir(exist_ok=True)
            shutil.move(path / str(other), target)
            done.append(f"{path.name}: moved generation {other} to {target}")
    return done


async def _drop_damaged_entries(storage: Storage, library: Library) -> list[str]:
    """Delete the entries of a library that fail their checksums."""
    count = 0
    after = None
    while found := await storage.scroll(
        library.uid, None, after, SCROLL_POINTS, Fields.ALL, vectors=True
    ):
        after = found[-1].uid
        damaged = [
            record.uid
            for record in found
            if find_damage(library, record.uid, record.payload, record.vectors)
        ]
        if damaged:
            await storage.delete(library.uid, damaged)
            count += len(damaged)
    return [f"{library.library_id}: deleted {count:,} damaged entries"] if count else []
