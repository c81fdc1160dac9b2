"""Rejected pairs as points of the metadata collection, and their removal.

A point holds the image ids of a pair and the version of each entry: its create time and the
SHA-256 of its file. An image id that is deleted and added again, or overwritten with another
file, names another picture, which the user has not judged. Changing tags, or overwriting with
the same file, keeps the version. A pair counts only while both entries have the stored versions,
so correctness does not depend on removing the pairs of deleted entries, which a crash may prevent.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from imagesearch_services.catalog.filters import AllOf, Match
from imagesearch_services.catalog.integrity import seal
from imagesearch_services.catalog.model import ENTRY_NAMESPACE, entry_uid
from imagesearch_services.catalog.payloads import METADATA
from imagesearch_services.catalog.storage import Fields, Payload, Point, Storage

SCROLL_POINTS = 1000
"""Points read and deleted per step."""

KIND = "rejected_pair"

EntryVersion = list[float | str]
"""Create time and SHA-256 of the file; a list, since it is stored as JSON."""


class Pair(NamedTuple):
    """Two image ids in any order."""

    a: str
    b: str


def entry_version(payload: Payload) -> EntryVersion:
    return [payload["create_time"], payload.get("sha256", "")]


def pair_uid(library_uid: str, pair: Pair) -> bytes:
    """Return the point id of a pair, which does not depend on the order of its images."""
    low, high = sorted(map(entry_uid, pair))
    return uuid.uuid5(ENTRY_NAMESPACE, f"pair:{library_uid}/{low.hex()}/{high.hex()}").bytes


def pair_point(library_uid: str, pair: Pair, versions: Mapping[str, EntryVersion]) -> Point:
    """Return the point to store; `versions` are by image id."""
    payload = {
        "kind": KIND,
        "library_uid": library_uid,
        "members": [_member(library_uid, entry_uid(image_id)) for image_id in pair],
        "image_ids": list(pair),
        "versions": [versions[image_id] for image_id in pair],
    }
    return Point(pair_uid(library_uid, pair), {}, seal(payload))


def stored_pair(payload: Payload) -> Pair:
    return Pair(*payload["image_ids"])


def is_current(payload: Payload, versions: Mapping[str, EntryVersion]) -> bool:
    """Return whether both entries still have the versions that the user rejected."""
    return all(
        versions.get(image_id) == version
        for image_id, version in zip(payload["image_ids"], payload["versions"], strict=True)
    )


def pairs_with(library_uid: str, entry_uids: Iterable[bytes]) -> AllOf:
    """Return a filter for the pairs that contain any of the entries."""
    members = tuple(_member(library_uid, uid) for uid in entry_uids)
    return AllOf((Match("kind", (KIND,)), Match("members", members)))


async def forget_entry_pairs(
    storage: Storage, library_uid: str, entry_uids: Sequence[bytes]
) -> None:
    """Remove the pairs of up to 1,000 deleted entries."""
    if entry_uids:
        await _remove(storage, pairs_with(library_uid, entry_uids))


async def forget_library_pairs(storage: Storage, library_uid: str) -> None:
    """Remove the pairs of a deleted library."""
    await _remove(storage, AllOf((Match("kind", (KIND,)), Match("library_uid", (library_uid,)))))


async def _remove(storage: Storage, where: AllOf) -> None:
    while found := await storage.scroll(METADATA, where, None, SCROLL_POINTS, Fields.NONE):
        await storage.delete(METADATA, [record.uid for record in found])


def _member(library_uid: str, entry_uid: bytes) -> str:
    return f"{library_uid}/{entry_uid.hex()}"
