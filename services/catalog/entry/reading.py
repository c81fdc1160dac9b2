"""Entries as read from the storage, without those that fail their checksums.

A damaged entry is never returned: not by a search, a listing or a read. It is logged and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import Counter

from imagesearch_services.catalog.integrity import (
    damaged_vectors,
    has_intact_features,
    is_intact,
)
from imagesearch_services.catalog.model import Entry, Library, VectorData, entry_uid
from imagesearch_services.catalog.payloads import entry_from_payload
from imagesearch_services.catalog.storage import Payload, Record
from imagesearch_services.common.logs import logger

DAMAGED = Counter(
    "imagesearch_catalog_damaged_entries_total", "Reads of stored entries that failed a checksum."
)


def read_entry(
    library: Library, uid: bytes, payload: Payload, vectors: Mapping[str, VectorData] | None = None
) -> Entry | None:
    """Return the entry of a payload, read with `Fields.ENTRY` or `ALL`; None if it is damaged."""
    problem = find_damage(library, uid, payload, vectors)
    if not problem:
        try:
            return entry_from_payload(payload, dict(vectors or {}))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            # Entries of earlier versions have no checksum.
            problem = f"{type(error).__name__}: {error}"
    report_damage(library, uid, problem)
    return None


def find_damage(
    library: Library, uid: bytes, payload: Payload, vectors: Mapping[str, VectorData] | None = None
) -> str:
    """Return what is damaged of an entry; empty if nothing is."""
    if not is_intact(payload):
        return "payload"
    image_id = payload.get("image_id")
    if not isinstance(image_id, str) or entry_uid(image_id) != uid:
        return "image_id"
    if vectors is not None:
        spaces = {space.name: space for space in library.spaces}
        if damaged := damaged_vectors(spaces, payload, vectors):
            return f"vector of {damaged[0]}"
    return ""


def intact(library: Library, records: Iterable[Record]) -> list[Record]:
    """Return the records, read with `Fields.ENTRY`, that match their checksums."""
    return [
        record
        for record in records
        if not (problem := find_damage(library, record.uid, record.payload))
        or report_damage(library, record.uid, problem)
    ]


def with_intact_features(library: Library, records: Iterable[Record]) -> list[Record]:
    """Return the records, read with `Fields.FEATURES`, whose features match their checksums."""
    return [
        record
        for record in records
        if has_intact_features(record.payload) or report_damage(library, record.uid, "features")
    ]


def report_damage(library: Library, uid: bytes, problem: str) -> bool:
    """Log and count a damaged entry; return False."""
    DAMAGED.inc()
    logger().error("entry.damaged", library=library.library_id, uid=uid.hex(), damaged=problem)
    return False
