"""Pairs that the user says are no duplicates, remembered for as long as both pictures are there.

A pair lies in the metadata collection as a point of its own, with what tells its two entries from
any that may come after them under the same ids: when each was first stored, and the digest of its
file. An id that is deleted and added anew, or overwritten with another file, is another picture,
of which the user said nothing; changing tags, or overwriting with the same file, keeps the pair.
A pair counts only where both its entries are still those, so that nothing depends on the removal
of the pairs of deleted entries, which a crash may leave undone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from imagesearch_services.catalog import checks, paging
from imagesearch_services.catalog.filters import AllOf, Match
from imagesearch_services.catalog.model import ENTRY_NAMESPACE, Library, entry_uid
from imagesearch_services.catalog.requests import METADATA, RequestKey, Requests
from imagesearch_services.catalog.storage import Fields, Payload, Point, Storage
from imagesearch_services.common.errors import (
    field_error,
    missing_field,
)

if TYPE_CHECKING:
    from imagesearch_services.catalog.libraries import Libraries
    from imagesearch_services.catalog.tasks import Unbroken

MAX_PAIRS = 1000
PAGE_PAIRS = 1000
SCROLL_POINTS = 1000
BATCH = 1000

KIND = "rejected_pair"

Version = list[float | str]
"""What tells an entry from others under its id: create time, SHA-256 of the file."""


class Pair(NamedTuple):
    """Two image ids; their order means nothing."""

    a: str
    b: str


class Rejections:
    """The rejected pairs of all libraries."""

    def __init__(
        self, storage: Storage, libraries: Libraries, requests: Requests, unbroken: Unbroken
    ) -> None:
        self._storage = storage
        self._libraries = libraries
        self._requests = requests
        self._unbroken = unbroken

    async def add(self, library_id: str, pairs: Sequence[Pair], key: RequestKey) -> int:
        """Remember pairs, all or none; return how many were not rejected before.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, IMAGE_NOT_FOUND, FIELD_REQUIRED, FIELD_INVALID.
        """
        if not pairs:
            raise missing_field("pairs")
        check_pairs(pairs)
        return await self._unbroken.run(self._add(library_id, pairs, key))

    async def of_images(
        self, library_id: str, image_ids: Sequence[str], page_token: str
    ) -> tuple[list[Pair], str]:
        """Return rejected pairs that have one of the images, and the token of the next page.

        They come in the order of their uids; a page may hold fewer than others, or none.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, FIELD_INVALID, PAGE_TOKEN_INVALID.
        """
        if len(image_ids) > MAX_PAIRS:
            raise field_error("image_ids", f"must be at most {MAX_PAIRS}")
        library = await self._libraries.get(library_id)
        members = list(dict.fromkeys(map(entry_uid, image_ids)))
        scope = f"rejected pairs {library.uid} {b''.join(members).hex()}"
        last = paging.read_token(scope, page_token)
        if not members:
            return [], ""
        async with self._libraries.steady(library):
            found = await self._storage.scroll(
                METADATA,
                _of_entries(library.uid, members),
                last,
                PAGE_PAIRS + 1,  # one more than given tells whether there is a next page
                Fields.ALL,
            )
            page = [record.payload for record in found[:PAGE_PAIRS]]
            pairs = [Pair(*payload["image_ids"]) for payload in page]
            versions = await self._versions(library, pairs)
        token = ""
        if len(found) > PAGE_PAIRS:
            token = paging.make_token(scope, found[PAGE_PAIRS - 1].uid)
        held = [
            pair for pair, payload in zip(pairs, page, strict=True) if _holds(payload, versions)
        ]
        return held, token

    async def _add(self, library_id: str, pairs: Sequence[Pair], key: RequestKey) -> int:
        async with self._requests.attempt(key) as answer:
            if answer is not None:
                known: int = answer["added_count"]
                return known
            async with self._libraries.hold(library_id):
                library = await self._libraries.get(library_id)
                versions = await self._versions(library, pairs)
                for pair in pairs:
                    for image_id in pair:
                        if image_id not in versions:
                            raise checks.image_not_found(library_id, image_id)
                before = await self._rejected(library, pairs)
                new = {_pair_uid(library, pair): pair for pair in pairs}
                points = [
                    Point(uid, {}, _payload(library, pair, versions))
                    for uid, pair in new.items()
                    if uid not in before
                ]
                if points:
                    await self._storage.upsert(METADATA, points)
            await self._requests.remember(key, {"added_count": len(points)})
            return len(points)

    async def _rejected(self, library: Library, pairs: Sequence[Pair]) -> set[bytes]:
        """Return the uids of those of the pairs that are rejected."""
        uids = list(dict.fromkeys(_pair_uid(library, pair) for pair in pairs))
        if not uids:
            return set()
        found = await self._storage.retrieve(METADATA, uids, Fields.ALL)
        versions = await self._versions(
            library, [Pair(*record.payload["image_ids"]) for record in found]
        )
        return {record.uid for record in found if _holds(record.payload, versions)}

    async def _versions(self, library: Library, pairs: Sequence[Pair]) -> dict[str, Version]:
        """Return what tells the pairs' entries from others, by image id, where they are there."""
        uids = list(dict.fromkeys(entry_uid(image_id) for pair in pairs for image_id in pair))
        versions: dict[str, Version] = {}
        for start in range(0, len(uids), BATCH):
            found = await self._storage.retrieve(
                library.uid, uids[start : start + BATCH], Fields.ENTRY
            )
            for record in found:
                payload = record.payload
                versions[payload["image_id"]] = [payload["create_time"], payload.get("sha256", "")]
        return versions


def check_pairs(pairs: Sequence[Pair]) -> None:
    """Refuse too many pairs, ids that can't be, and pairs of one image.

    Raises:
        ServiceError: FIELD_REQUIRED, FIELD_INVALID.
    """
    if len(pairs) > MAX_PAIRS:
        raise field_error("pairs", f"must be at most {MAX_PAIRS}")
    for number, pair in enumerate(pairs):
        checks.check_image_id(f"pairs[{number}].image_id_a", pair.a)
        checks.check_image_id(f"pairs[{number}].image_id_b", pair.b)
        if pair.a == pair.b:
            raise field_error(f"pairs[{number}].image_id_b", "must be another image")


async def forget_entry_pairs(storage: Storage, library_uid: str, uids: Sequence[bytes]) -> None:
    """Remove the pairs of up to a thousand entries that are gone."""
    if uids:
        await _remove(storage, _of_entries(library_uid, uids))


async def forget_library_pairs(storage: Storage, library_uid: str) -> None:
    """Remove the pairs of a library that is gone."""
    await _remove(storage, AllOf((Match("kind", (KIND,)), Match("library_uid", (library_uid,)))))


async def _remove(storage: Storage, where: AllOf) -> None:
    while found := await storage.scroll(METADATA, where, None, SCROLL_POINTS, Fields.NONE):
        await storage.delete(METADATA, [record.uid for record in found])


def _of_entries(library_uid: str, uids: Iterable[bytes]) -> AllOf:
    members = tuple(_member(library_uid, uid) for uid in uids)
    return AllOf((Match("kind", (KIND,)), Match("members", members)))


def _member(library_uid: str, uid: bytes) -> str:
    return f"{library_uid}/{uid.hex()}"


def _pair_uid(library: Library, pair: Pair) -> bytes:
    low, high = sorted(map(entry_uid, pair))
    return uuid.uuid5(ENTRY_NAMESPACE, f"pair:{library.uid}/{low.hex()}/{high.hex()}").bytes


def _payload(library: Library, pair: Pair, versions: Mapping[str, Version]) -> Payload:
    return {
        "kind": KIND,
        "library_uid": library.uid,
        "members": [_member(library.uid, entry_uid(image_id)) for image_id in pair],
        "image_ids": list(pair),
        "versions": [versions[image_id] for image_id in pair],
    }


def _holds(payload: Payload, versions: Mapping[str, Version]) -> bool:
    """Tell whether both entries are still those of which the user spoke."""
    return all(
        versions.get(image_id) == version
        for image_id, version in zip(payload["image_ids"], payload["versions"], strict=True)
    )
