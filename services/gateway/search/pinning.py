"""Pinned rankings: how a page token preserves a search, and which requests may continue it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from imagesearch_services.common.types import LibraryType
from imagesearch_services.gateway.model import Relation
from imagesearch_services.gateway.search.answer import SearchAnswer
from imagesearch_services.gateway.search.model import RankedHit, SearchRun
from imagesearch_services.gateway.search.pinned_ranking import PinnedMatch, PinnedRanking
from imagesearch_services.gateway.search.request import SearchRequest, StoredQuery
from imagesearch_services.gateway.tokens import fingerprint, invalid_token


def pin(run: SearchRun, answer: SearchAnswer, rest: Sequence[RankedHit]) -> PinnedRanking:
    """Return the hits of later pages, and the details of the search that these pages repeat."""
    regions = list(dict.fromkeys(hit.box for hit in rest if hit.box is not None))
    rows = {box: row for row, box in enumerate(regions)}
    return PinnedRanking(
        library_id=run.library.library_id,
        library_uid=run.library.uid,
        request=_fingerprints(run, answer),
        total_found=answer.total_found,
        total_is_lower_bound=answer.total_is_lower_bound,
        searched_region=answer.searched_region,
        query_info=answer.query_info,
        subjects=answer.subjects,
        chosen_subject=answer.chosen_subject,
        warnings=answer.warnings,
        thresholds=answer.thresholds,
        regions=regions,
        matches=[
            PinnedMatch(
                uid=hit.uid,
                relation=hit.relation,
                score=hit.score,
                similarity=hit.similarity,
                false_positive_rate=hit.false_positive_rate,
                region=None if hit.box is None else rows[hit.box],
                instances=hit.instances,
            )
            for hit in rest
        ],
    )


async def check_same_search(ranking: PinnedRanking, request: SearchRequest) -> None:
    """Raise PAGE_TOKEN_INVALID if the request sets a field that differs from the pinned search."""
    if ranking.library_id != request.library_id:
        raise invalid_token("it belongs to another library")
    fingerprints = dict(request.field_fingerprints)
    if request.relations:
        fingerprints["relation"] = fingerprint(request.relations)
    if isinstance(request.query, StoredQuery):
        fingerprints["image_name"] = fingerprint(request.query.image_id)
    elif request.query is not None:
        # Hashing a file of ten megabytes would block the event loop for some milliseconds.
        digest = await asyncio.to_thread(hashlib.sha256, request.query.content)
        fingerprints["image"] = digest.hexdigest()
    for name, value in fingerprints.items():
        if ranking.request.get(name) != value:
            raise invalid_token(f"it belongs to a search with another {name}")


def _fingerprints(run: SearchRun, answer: SearchAnswer) -> dict[str, str]:
    fingerprints = {**run.request.field_fingerprints, "relation": fingerprint(_relations(run))}
    if answer.query_info is not None:
        fingerprints["image"] = answer.query_info.sha256
    elif isinstance(run.request.query, StoredQuery):
        fingerprints["image_name"] = fingerprint(run.request.query.image_id)
    return fingerprints


def _relations(run: SearchRun) -> tuple[Relation, ...]:
    if run.library.type is not LibraryType.WHOLE_IMAGE:
        return ()
    return run.request.relations or (Relation.SAME,)
