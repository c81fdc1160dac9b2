"""Pairs of images that the user rejects as duplicates; `rejected_pairs.py` says how they last."""

from __future__ import annotations

from collections.abc import Sequence

from imagesearch_services.catalog.answered_requests import AnsweredRequests, RequestKey
from imagesearch_services.catalog.entry.checks import check_image_id
from imagesearch_services.catalog.entry.reading import intact
from imagesearch_services.catalog.errors import image_not_found
from imagesearch_services.catalog.integrity import intact_payloads, is_intact
from imagesearch_services.catalog.library.libraries import Libraries
from imagesearch_services.catalog.model import Library, entry_uid
from imagesearch_services.catalog.paging import PageTokens
from imagesearch_services.catalog.payloads import METADATA
from imagesearch_services.catalog.rejected_pairs import (
    EntryVersion,
    Pair,
    entry_version,
    is_current,
    pair_point,
    pair_uid,
    pairs_with,
    stored_pair,
)
from imagesearch_services.catalog.storage import Fields, Storage
from imagesearch_services.catalog.tasks import ShieldedTasks
from imagesearch_services.common.errors import field_error, missing_field

MAX_PAIRS = 1000
"""Maximum pairs, or images whose pairs are read, per call."""
PAGE_PAIRS = 1000
"""Maximum pairs per page."""
BATCH = 1000
"""Entries read at once."""


class Rejections:
    """The rejected pairs of all libraries."""

    def __init__(
        self,
        storage: Storage,
        libraries: Libraries,
        requests: AnsweredRequests,
        shielded: ShieldedTasks,
        tokens: PageTokens,
    ) -> None:
        self._storage = storage
        self._libraries = libraries
        self._requests = requests
        self._shielded = shielded
        self._tokens = tokens

    async def add(self, library_id: str, pairs: Sequence[Pair], key: RequestKey) -> int:
        """Store pairs, all or none; return the number of pairs that were not rejected before.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, IMAGE_NOT_FOUND, FIELD_REQUIRED, FIELD_INVALID.
        """
        if not pairs:
            raise missing_field("pairs")
        check_pairs(pairs)
        return await self._shielded.run(self._add(library_id, pairs, key))

    async def list_page(
        self, library_id: str, image_ids: Sequence[str], page_token: str
    ) -> tuple[list[Pair], str]:
        """Return rejected pairs that contain any of the images, and the token of the next page.

        Pairs are ordered by their uids. A page may hold fewer pairs than the maximum, or none,
        and still have a next page.

        Raises:
            ServiceError: LIBRARY_NOT_FOUND, FIELD_INVALID, PAGE_TOKEN_INVALID.
        """
        if len(image_ids) > MAX_PAIRS:
            raise field_error(
                "image_ids", f"must have at most {MAX_PAIRS} items, not {len(image_ids)}"
            )
        library = await self._libraries.get(library_id)
        members = list(dict.fromkeys(map(entry_uid, image_ids)))
        scope = f"rejected pairs {library.uid} {b''.join(members).hex()}"
        last = await self._tokens.read(scope, page_token)
        if not members:
            return [], ""
        async with self._libraries.detect_change(library):
            found = await self._storage.scroll(
                METADATA,
                pairs_with(library.uid, members),
                last,
                PAGE_PAIRS + 1,  # the extra pair shows that there is a next page
                Fields.ALL,
            )
            page = intact_payloads(found[:PAGE_PAIRS])
            versions = await self._versions(library, list(map(stored_pair, page)))
        token = ""
        if len(found) > PAGE_PAIRS:
            token = await self._tokens.make(scope, found[PAGE_PAIRS - 1].uid)
        return [stored_pair(payload) for payload in page if is_current(payload, versions)], token

    async def _add(self, library_id: str, pairs: Sequence[Pair], key: RequestKey) -> int:
        async with self._requests.attempt(key) as answer:
            if answer is not None:
                known: int = answer["added_count"]
                return known
            async with self._libraries.write_lock(library_id):
                library = await self._libraries.get(library_id)
                versions = await self._versions(library, pairs)
                for pair in pairs:
                    for image_id in pair:
                        if image_id not in versions:
                            raise image_not_found(library_id, image_id)
                rejected = await self._rejected(library, pairs)
                by_uid = {pair_uid(library.uid, pair): pair for pair in pairs}
                points = [
                    pair_point(library.uid, pair, versions)
                    for uid, pair in by_uid.items()
                    if uid not in rejected
                ]
                if points:
                    await self._storage.check_space()
                    await self._storage.upsert(METADATA, points)
            await self._requests.remember(key, {"added_count": len(points)})
            return len(points)

    async def _rejected(self, library: Library, pairs: Sequence[Pair]) -> set[bytes]:
        """Return the uids of the given pairs that are rejected already."""
        uids = list(dict.fromkeys(pair_uid(library.uid, pair) for pair in pairs))
        records = await self._storage.retrieve(METADATA, uids, Fields.ALL)
        found = [record for record in records if is_intact(record.payload)]
        versions = await self._versions(library, [stored_pair(record.payload) for record in found])
        return {record.uid for record in found if is_current(record.payload, versions)}

    async def _versions(self, library: Library, pairs: Sequence[Pair]) -> dict[str, EntryVersion]:
        """Return the versions of the entries of pairs by image id, without missing entries."""
        uids = list(dict.fromkeys(entry_uid(image_id) for pair in pairs for image_id in pair))
        versions: dict[str, EntryVersion] = {}
        for start in range(0, len(uids), BATCH):
            batch = uids[start : start + BATCH]
            found = await self._storage.retrieve(library.uid, batch, Fields.ENTRY)
            versions |= {
                record.payload["image_id"]: entry_version(record.payload)
                for record in intact(library, found)
            }
        return versions


def check_pairs(pairs: Sequence[Pair]) -> None:
    """Check the number of pairs, their image ids, and that each pair has two images.

    Raises:
        ServiceError: FIELD_REQUIRED, FIELD_INVALID.
    """
    if len(pairs) > MAX_PAIRS:
        raise field_error("pairs", f"must have at most {MAX_PAIRS} items, not {len(pairs)}")
    for number, pair in enumerate(pairs):
        check_image_id(f"pairs[{number}].image_id_a", pair.a)
        check_image_id(f"pairs[{number}].image_id_b", pair.b)
        if pair.a == pair.b:
            raise field_error(f"pairs[{number}].image_id_b", "must differ from image_id_a")
