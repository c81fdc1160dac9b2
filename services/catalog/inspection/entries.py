"""Checks the entries of one library: payloads, features, vectors and thumbnails."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from imagesearch_services.catalog.entry.reading import find_damage
from imagesearch_services.catalog.inspection.report import MAX_LISTED, Library, State
from imagesearch_services.catalog.model import Library as LibraryRecord
from imagesearch_services.catalog.model import entry_uid
from imagesearch_services.catalog.storage import Record
from imagesearch_services.catalog.thumbnails.store import stored_thumbnails

DROP = "with --drop-damaged-entries: delete the damaged entries"


def check_entries(
    record: LibraryRecord, points: Iterable[Record], thumbnails: Path | None, found: Library
) -> None:
    """Add what is damaged in a library to `found`."""
    found.entry_count = 0
    for point in points:
        found.entry_count += 1
        if find_damage(record, point.uid, point.payload, point.vectors):
            found.damaged_entry_count += 1
            if len(found.damaged_entries) < MAX_LISTED:
                found.damaged_entries.append(_name(point))
        elif thumbnails is not None:
            found.missing_thumbnail_count += not _has_thumbnail(record, point, thumbnails)
    if found.damaged_entry_count:
        text = f"{found.damaged_entry_count:,} entries are damaged"
        found.add(State.DAMAGED, text, repair=DROP, lost=f"{found.damaged_entry_count:,} entries")
    if found.missing_thumbnail_count:
        text = f"{found.missing_thumbnail_count:,} thumbnails are missing or damaged"
        found.add(State.DAMAGED, text, lost=f"{found.missing_thumbnail_count:,} thumbnails")


def _has_thumbnail(record: LibraryRecord, point: Record, folder: Path) -> bool:
    """Return whether the thumbnail is there; also if the entry has none."""
    for ref in stored_thumbnails(record.uid, [point]):
        try:
            return ref.matches((folder / ref.blob_name).read_bytes())
        except OSError:
            return False
    return True


def _name(point: Record) -> str:
    image_id = point.payload.get("image_id")
    known = isinstance(image_id, str) and entry_uid(image_id) == point.uid
    return str(image_id) if known else f"uid {point.uid.hex()}"
